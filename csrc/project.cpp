// Host side of projection: checks, allocation, dispatch.
#include "executor.h"
#include "ops.h"

namespace splatrender {
namespace {

struct Inputs {
  Tensor means, amplitudes, viewmats, intrinsics;
  OptionalTensor quats, scales, factors;
  int64_t N, C;
};

template <class T>
ProjectArgs<T> arguments(const Inputs& in, int64_t width, int64_t height, double near_plane, double far_plane,
                         double eps2d, bool antialiased, int64_t response) {
  ProjectArgs<T> a{};
  a.N = in.N, a.C = in.C;
  a.means = cdata<T>(in.means);
  if (in.factors) {
    a.factors = cdata<T>(*in.factors);
  } else {
    a.quats = cdata<T>(*in.quats), a.scales = cdata<T>(*in.scales);
  }
  a.amplitudes = cdata<T>(in.amplitudes);
  a.viewmats = cdata<T>(in.viewmats), a.intrinsics = cdata<T>(in.intrinsics);
  a.width = int(width), a.height = int(height);
  a.near_plane = near_plane, a.far_plane = far_plane, a.eps2d = eps2d;
  a.antialiased = antialiased, a.response = int(response);
  return a;
}

Inputs checked(Checker& check, ScalarType type, const Tensor& means, const OptionalTensor& quats,
               const OptionalTensor& scales, const OptionalTensor& factors, const Tensor& amplitudes,
               const Tensor& viewmats, const Tensor& intrinsics, int64_t width, int64_t height, double near_plane,
               double eps2d, int64_t response) {
  check.require(factors ? !quats && !scales : quats && scales, "quats, scales, factors",
                "either quats and scales or factors", "another combination");
  Inputs in;
  in.means = check(means, "means", type, {"N", 3});
  if (factors) {
    in.factors = check(*factors, "factors", type, {"N", 3, 3});
  } else {
    in.quats = check(*quats, "quats", type, {"N", 4});
    in.scales = check(*scales, "scales", type, {"N", 3});
  }
  in.amplitudes = check(amplitudes, "amplitudes", type, {"N"});
  in.viewmats = check(viewmats, "viewmats", type, {"C", 4, 4});
  in.intrinsics = check(intrinsics, "intrinsics", type, {"C", 4});
  in.N = check.size("N"), in.C = check.size("C");
  check_rows(check, "means", in.C, in.N);
  check_image(check, width, height);
  check_response(check, response);
  check.require(near_plane > 0, "near", "a positive distance", std::to_string(near_plane));
  check.require(eps2d >= 0, "eps2d", "a number >= 0", std::to_string(eps2d));
  return in;
}

}  // namespace

std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor> project_op(
    Tensor means, OptionalTensor quats, OptionalTensor scales, OptionalTensor factors, Tensor amplitudes,
    Tensor viewmats, Tensor intrinsics, int64_t width, int64_t height, double near_plane, double far_plane,
    double eps2d, bool antialiased, int64_t response) {
  Checker check("project");
  const ScalarType type = float_type(means, "project", "means");
  const Inputs in = checked(check, type, means, quats, scales, factors, amplitudes, viewmats, intrinsics, width, height,
                            near_plane, eps2d, response);
  Tensor means2d = make(means, {in.C, in.N, 2}, type), conics = make(means, {in.C, in.N, 3}, type),
         depths = make(means, {in.C, in.N}, type), peaks = make(means, {in.C, in.N}, type),
         extents = make(means, {in.C, in.N, 2}, type);
  by_type(type, [&](auto zero) {
    using T = decltype(zero);
    auto a = arguments<T>(in, width, height, near_plane, far_plane, eps2d, antialiased, response);
    a.means2d = data<T>(means2d), a.conics = data<T>(conics), a.depths = data<T>(depths);
    a.peaks = data<T>(peaks), a.extents = data<T>(extents);
    run(
        "project", means, [&](auto& context) { return cuda::project(a, context); },
        [&](auto& cpu) { cpu.template stages<T>().project(a); });
  });
  return {means2d, conics, depths, peaks, extents};
}

std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor> project_backward_op(
    Tensor means, OptionalTensor quats, OptionalTensor scales, OptionalTensor factors, Tensor amplitudes,
    Tensor viewmats, Tensor intrinsics, Tensor extents, Tensor grad_means2d, Tensor grad_conics, Tensor grad_depths,
    Tensor grad_peaks, int64_t width, int64_t height, double near_plane, double far_plane, double eps2d,
    bool antialiased, int64_t response) {
  Checker check("project_backward");
  const ScalarType type = float_type(means, "project_backward", "means");
  const Inputs in = checked(check, type, means, quats, scales, factors, amplitudes, viewmats, intrinsics, width, height,
                            near_plane, eps2d, response);
  const Tensor ex = check(extents, "extents", type, {"C", "N", 2});
  const Tensor g2 = check(grad_means2d, "grad_means2d", type, {"C", "N", 2});
  const Tensor gc = check(grad_conics, "grad_conics", type, {"C", "N", 3});
  const Tensor gd = check(grad_depths, "grad_depths", type, {"C", "N"});
  const Tensor gp = check(grad_peaks, "grad_peaks", type, {"C", "N"});
  Tensor g_means = make(means, {in.N, 3}, type), g_amplitudes = make(means, {in.N}, type),
         g_viewmats = make(means, {in.C, 4, 4}, type), g_intrinsics = make(means, {in.C, 4}, type);
  Tensor g_quats = make(means, {factors ? 0 : in.N, 4}, type), g_scales = make(means, {factors ? 0 : in.N, 3}, type),
         g_factors = make(means, {factors ? in.N : 0, 3, 3}, type);
  const int64_t chunks = partial_sums(means, in.N);
  Tensor partial = make(means, {chunks * in.C * 16 + 1}, ScalarType::Double);
  by_type(type, [&](auto zero) {
    using T = decltype(zero);
    auto a = arguments<T>(in, width, height, near_plane, far_plane, eps2d, antialiased, response);
    a.extents = const_cast<T*>(cdata<T>(ex));  // read only in backward
    const ProjectGrads<T> g{cdata<T>(g2),          cdata<T>(gc),        cdata<T>(gd),          cdata<T>(gp),
                            data<T>(g_means),      data<T>(g_quats),    data<T>(g_scales),     data<T>(g_factors),
                            data<T>(g_amplitudes), data<T>(g_viewmats), data<T>(g_intrinsics), data<double>(partial)};
    run(
        "project_backward", means, [&](auto& context) { return cuda::project_backward(a, g, context); },
        [&](auto& cpu) { cpu.template stages<T>().project_backward(a, g); });
  });
  return {g_means, g_quats, g_scales, g_factors, g_amplitudes, g_viewmats, g_intrinsics};
}

}  // namespace splatrender
