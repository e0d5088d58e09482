// Host side of shading: checks, allocation, dispatch.
#include "executor.h"
#include "ops.h"

namespace splatrender {
namespace {

struct Inputs {
  Tensor means, sh, viewmats, extents;
};

Inputs checked(Checker& check, ScalarType type, const Tensor& means, const Tensor& sh, const Tensor& viewmats,
               const Tensor& extents, int64_t degree) {
  check_rows(check, "extents", extents);
  Inputs in{check(means, "means", type, {"N", 3}), check(sh, "sh", type, {"N", "K", 3}),
            check(viewmats, "viewmats", type, {"C", 4, 4}), check(extents, "extents", type, {"C", "N", 2})};
  check.require(degree >= 0 && degree <= 3, "degree", "0 to 3", std::to_string(degree));
  const int64_t K = check.size("K");
  check.require(
      K >= (degree + 1) * (degree + 1) && K <= 16, "sh",
      "at least (degree+1)² = " + std::to_string((degree + 1) * (degree + 1)) + " and at most 16 coefficients",
      std::to_string(K));
  return in;
}

template <class T>
ShadeArgs<T> arguments(const Checker& check, const Inputs& in, int64_t degree, const Tensor& emission) {
  return {check.size("N"), check.size("C"),       int(check.size("K")), int(degree),      cdata<T>(in.means),
          cdata<T>(in.sh), cdata<T>(in.viewmats), cdata<T>(in.extents), data<T>(emission)};
}

}  // namespace

Tensor shade_op(Tensor means, Tensor sh, Tensor viewmats, Tensor extents, int64_t degree) {
  Checker check("shade");
  const ScalarType type = float_type(means, "shade", "means");
  const Inputs in = checked(check, type, means, sh, viewmats, extents, degree);
  Tensor emission = make(means, {check.size("C"), check.size("N"), 3}, type);
  by_type(type, [&](auto zero) {
    using T = decltype(zero);
    const auto a = arguments<T>(check, in, degree, emission);
    run(
        "shade", means, [&](auto& context) { return cuda::shade(a, context); },
        [&](auto& cpu) { cpu.template stages<T>().shade(a); });
  });
  return emission;
}

std::tuple<Tensor, Tensor, Tensor> shade_backward_op(Tensor means, Tensor sh, Tensor viewmats, Tensor extents,
                                                     Tensor emission, Tensor grad_emission, int64_t degree) {
  Checker check("shade_backward");
  const ScalarType type = float_type(means, "shade_backward", "means");
  const Inputs in = checked(check, type, means, sh, viewmats, extents, degree);
  const Tensor out = check(emission, "emission", type, {"C", "N", 3});
  const Tensor go = check(grad_emission, "grad_emission", type, {"C", "N", 3});
  const int64_t N = check.size("N"), C = check.size("C");
  Tensor g_means = make(means, {N, 3}, type), g_sh = make(means, {N, check.size("K"), 3}, type),
         g_viewmats = make(means, {C, 4, 4}, type);
  const int64_t chunks = partial_sums(means, N);
  Tensor partial = make(means, {chunks * C * 16 + 1}, ScalarType::Double);
  by_type(type, [&](auto zero) {
    using T = decltype(zero);
    const ShadeGrads<T> g{cdata<T>(go), data<T>(g_means), data<T>(g_sh), data<T>(g_viewmats), data<double>(partial)};
    const auto a = arguments<T>(check, in, degree, out);
    run(
        "shade_backward", means, [&](auto& context) { return cuda::shade_backward(a, g, context); },
        [&](auto& cpu) { cpu.template stages<T>().shade_backward(a, g); });
  });
  return {g_means, g_sh, g_viewmats};
}

}  // namespace splatrender
