// Adam on the rows of a parameter that were seen. The work is bound by memory: rows that were not seen are not read.
//
// A block takes 256 rows. First a thread is one row: it finds the bias corrections of the row's own step count, which
// go through shared memory. Then a thread is one number at a time, so that neighbours in memory are neighbours in the
// warp whatever the length of a row.
#include "../math/adam.h"
#include "runtime.h"
#include "stages_cuda.h"

namespace splatrender::cuda {

constexpr int kAdamRows = 256;  // rows of a block, and its threads

__global__ void __launch_bounds__(kAdamRows, 4) adam_kernel(AdamArgs a, AdamConstants<float> constants) {
  // 1/(1-β1ᵗ), or 0 for rows that are left alone, and 1/√(1-β2ᵗ)
  __shared__ float first[kAdamRows], second[kAdamRows];
  const int64_t begin = int64_t(blockIdx.x) * kAdamRows, n = begin + threadIdx.x;
  first[threadIdx.x] = 0;
  if (n < a.N && (!a.rows || a.rows[n] != 0)) {
    const int32_t step = a.steps[n] + 1;
    if (a.advance) a.steps[n] = step;
    first[threadIdx.x] = 1.f / one_minus_exp(float(step) * constants.log1);
    second[threadIdx.x] = 1.f / square_root(one_minus_exp(float(step) * constants.log2));
  }
  __syncthreads();
  const int row_length = a.row > 0 ? int(a.row) : 1;
  const int rows_each = kAdamRows / row_length, columns_each = kAdamRows % row_length;
  const int64_t rows = a.N - begin < kAdamRows ? a.N - begin : kAdamRows, end = (begin + rows) * a.row;
  int row = threadIdx.x / row_length, column = threadIdx.x % row_length;
  for (int64_t at = begin * a.row + threadIdx.x; at < end; at += kAdamRows) {
    if (column < a.columns && first[row] > 0.f) {
      float p = a.param[at], m = a.exp_avg[at], v = a.exp_avg_sq[at];
      adam_update(constants, a.lr[column] * first[row], second[row], a.grad[at], p, m, v);
      a.param[at] = p, a.exp_avg[at] = m, a.exp_avg_sq[at] = v;
    }
    row += rows_each, column += columns_each;
    if (column >= row_length) column -= row_length, ++row;
  }
}

Status adam(const AdamArgs& a, Context& context) {
  if (a.N == 0) return {};
  const AdamConstants<float> constants{
      float(a.beta1),           float(a.beta2),           float(1 - a.beta1), float(1 - a.beta2),
      float(std::log(a.beta1)), float(std::log(a.beta2)), float(a.eps)};
  return launch("adam_kernel", adam_kernel, dim3(unsigned(divide_up(a.N, kAdamRows))), dim3(kAdamRows), context.stream,
                a, constants);
}

}  // namespace splatrender::cuda
