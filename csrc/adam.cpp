// Host side of Adam: checks and dispatch. The parameter, its moments and the step counts are changed in place.
#include "executor.h"
#include "ops.h"

namespace splatrender {

void adam_step_op(Tensor param, Tensor grad, Tensor exp_avg, Tensor exp_avg_sq, Tensor steps, OptionalTensor rows,
                  Tensor lr, double beta1, double beta2, double eps, int64_t columns, bool advance) {
  Checker check("adam_step");
  check.require(param.dim() >= 1, "param", "shape [N, ...]", "shape " + shape_text(param));
  const int64_t N = param.size(0);
  int64_t row = 1;
  for (int64_t i = 1; i < param.dim(); ++i) row *= param.size(i);
  check.require(row <= kMostRows, "param", "fewer than 2^31 numbers in a row", std::to_string(row));
  const auto checked = [&](const Tensor& t, const char* name, bool written) {
    check.require(t.scalar_type() == ScalarType::Float, name, "float32", dtype_text(t.scalar_type()));
    check.on_device(t, name);
    check.require(shape_text(t) == shape_text(param), name, "the shape of param, " + shape_text(param),
                  "shape " + shape_text(t));
    check.require(!written || t.is_contiguous(), name, "a contiguous tensor", "strides with gaps");
    return t.is_contiguous() ? t : torch::stable::contiguous(t);
  };
  checked(param, "param", true), checked(exp_avg, "exp_avg", true), checked(exp_avg_sq, "exp_avg_sq", true);
  const Tensor g = checked(grad, "grad", false);
  check(steps, "steps", ScalarType::Int, {N});
  check.require(steps.is_contiguous(), "steps", "a contiguous tensor", "strides with gaps");
  OptionalTensor seen;
  if (rows) {
    const bool boolean = rows->scalar_type() == ScalarType::Bool;
    seen = check(*rows, "rows", boolean ? ScalarType::Bool : ScalarType::Byte, {N});
  }
  check.require(columns >= 0 && columns <= row, "columns", "0 to " + std::to_string(row), std::to_string(columns));
  const Tensor rates = check(lr, "lr", ScalarType::Float, {columns});
  check.require(beta1 >= 0 && beta1 < 1, "beta1", "a number from 0 to below 1", std::to_string(beta1));
  check.require(beta2 >= 0 && beta2 < 1, "beta2", "a number from 0 to below 1", std::to_string(beta2));
  check.require(eps >= 0, "eps", "a number >= 0", std::to_string(eps));
  AdamArgs a{};
  a.N = N, a.row = row, a.columns = int(columns);
  a.beta1 = beta1, a.beta2 = beta2, a.eps = eps, a.advance = advance;
  a.param = data<float>(param), a.exp_avg = data<float>(exp_avg), a.exp_avg_sq = data<float>(exp_avg_sq);
  a.grad = cdata<float>(g), a.lr = cdata<float>(rates), a.steps = data<int32_t>(steps);
  a.rows = seen ? cdata<uint8_t>(*seen) : nullptr;
  run("adam_step", param, [&](auto& context) { return cuda::adam(a, context); }, [&](auto& cpu) { cpu.adam(a); });
}

}  // namespace splatrender
