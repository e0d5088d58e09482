// Adam on the rows of a parameter that were seen. The work is bound by memory: rows that were not seen are not read.
//
// Rows at least as long as a pack (spherical harmonics) are updated one by one, a pack of columns at a time. Shorter
// ones (means, quaternions, ...) as many at once as a pack has lanes: together they are whole packs in memory.
#include <cmath>

#include "../math/adam.h"
#include "kernels.h"
#include "stage_table.h"

namespace splatrender {
inline namespace SPLATRENDER_ISA {
namespace {

constexpr int kLanes = lanes_of<float>;
constexpr int64_t kChunk = 32768;  // numbers that a thread takes at a time
using S = Pack<float, kLanes>;

AdamConstants<S> constants(const AdamArgs& a) {
  return {float(a.beta1),           float(a.beta2),           float(1 - a.beta1), float(1 - a.beta2),
          float(std::log(a.beta1)), float(std::log(a.beta2)), float(a.eps)};
}

// Bias corrections of the rows n .. n+kLanes-1: 1/(1-β1ᵗ), or 0 for rows that are left alone, and 1/√(1-β2ᵗ).
// Returns whether any row is to move. Which rows move is as good as random: no branches.
bool corrections(const AdamArgs& a, const AdamConstants<S>& c, int64_t n, int count, float* first, float* second) {
  float t[kLanes], live[kLanes] = {};
  for (int j = 0; j < kLanes; ++j) t[j] = 1;
  if (count == kLanes) {
    for (int j = 0; j < kLanes; ++j) t[j] = float(a.steps[n + j] + 1), live[j] = 1;
    if (a.rows)
      for (int j = 0; j < kLanes; ++j) live[j] = float(a.rows[n + j] != 0);
  } else {
    for (int j = 0; j < count; ++j) t[j] = float(a.steps[n + j] + 1), live[j] = float(!a.rows || a.rows[n + j] != 0);
  }
  const auto moving = S::load(live) > S(0.f);
  if (!any(moving)) return false;
  const S steps = S::load(t), one(1.f);
  mask_or_zero(moving, one / one_minus_exp(steps * c.log1)).store(first);
  (one / square_root(one_minus_exp(steps * c.log2))).store(second);
  return true;
}

// The numbers at .. at+count-1 (count <= kLanes), where first > 0.
SR_INLINE void update(const AdamArgs& a, const AdamConstants<S>& c, int64_t at, int count, S lr, S first, S second) {
  const auto live = first > S(0.f);
  if (!any(live)) return;
  float *param = a.param + at, *exp_avg = a.exp_avg + at, *exp_avg_sq = a.exp_avg_sq + at;
  const float* grad = a.grad + at;
  float buffer[4][kLanes] = {};
  if (count < kLanes) {  // the end of a row or of the tensor: by way of a buffer
    const float* sources[4] = {grad, param, exp_avg, exp_avg_sq};
    for (int k = 0; k < 4; ++k) std::memcpy(buffer[k], sources[k], count * sizeof(float));
    grad = buffer[0], param = buffer[1], exp_avg = buffer[2], exp_avg_sq = buffer[3];
  }
  const S p = S::load(param), m = S::load(exp_avg), v = S::load(exp_avg_sq);
  S new_p = p, new_m = m, new_v = v;
  adam_update(c, lr * first, second, S::load(grad), new_p, new_m, new_v);
  select(live, new_p, p).store(param);
  select(live, new_m, m).store(exp_avg);
  select(live, new_v, v).store(exp_avg_sq);
  if (count < kLanes) {
    float* targets[3] = {a.param + at, a.exp_avg + at, a.exp_avg_sq + at};
    for (int k = 0; k < 3; ++k) std::memcpy(targets[k], buffer[k + 1], count * sizeof(float));
  }
}

// `keep` is 1 for the columns that move and 0 for the others.
void long_rows(const AdamArgs& a, const AdamConstants<S>& c, const float* lr, const float* keep, int64_t n, int count) {
  float first[kLanes], second[kLanes];
  if (!corrections(a, c, n, count, first, second)) return;
  for (int j = 0; j < count; ++j) {
    if (!(first[j] > 0)) continue;
    for (int64_t k = 0; k < a.columns; k += kLanes) {
      const int64_t left = a.row - k;
      update(a, c, (n + j) * a.row + k, left < kLanes ? int(left) : kLanes, S::load(lr + k),
             S(first[j]) * S::load(keep + k), second[j]);
    }
  }
}

// kLanes rows are `row` packs: the corrections of the rows are spread over them. ROW: `row` where it is known.
template <int ROW>
void short_rows(const AdamArgs& a, const AdamConstants<S>& c, const float* lr, const float* keep, int64_t n,
                int count) {
  float first[kLanes], second[kLanes], firsts[kLanes * kLanes], seconds[kLanes * kLanes];
  if (!corrections(a, c, n, count, first, second)) return;
  const int row = ROW ? ROW : int(a.row), numbers = count * row;
  for (int j = 0; j < kLanes; ++j)
    for (int k = 0; k < row; ++k) firsts[j * row + k] = first[j] * keep[k], seconds[j * row + k] = second[j];
  for (int e = 0; e < numbers; e += kLanes)
    update(a, c, n * row + e, numbers - e < kLanes ? numbers - e : kLanes, S::load(lr + e), S::load(firsts + e),
           S::load(seconds + e));
}

void adam_loop(const AdamArgs& a) {
  if (a.N == 0) return;
  static thread_local Scratch memory;
  // Step sizes, and which columns move, as packs want them: of kLanes short rows one after another, or of one row.
  const bool is_short = a.row < kLanes;
  const int64_t rates = is_short ? kLanes * a.row : a.row + kLanes;
  float *lr = memory.get<float>(2 * rates), *keep = lr + rates;
  for (int64_t e = 0; e < rates; ++e) {
    const int64_t k = is_short ? e % a.row : e;
    keep[e] = k < a.columns, lr[e] = k < a.columns ? a.lr[k] : 0.f;
  }
  const auto rows =
      !is_short    ? long_rows
      : a.row == 1 ? short_rows<1>
      : a.row == 3 ? short_rows<3>
      : a.row == 4 ? short_rows<4>
                   : short_rows<0>;
  const AdamConstants<S> c = constants(a);
  const int64_t size = (kChunk / (a.row + 1) / kLanes + 1) * kLanes;
  parallel_for((a.N + size - 1) / size, [&](int64_t chunk) {
    const int64_t end = (chunk + 1) * size < a.N ? (chunk + 1) * size : a.N;
    for (int64_t n = chunk * size; n < end; n += kLanes) {
      const int count = int(end - n < kLanes ? end - n : kLanes);
      rows(a, c, lr, keep, n, count);
      if (!a.advance) continue;
      for (int j = 0; j < count; ++j) a.steps[n + j] += a.rows ? a.rows[n + j] != 0 : 1;
    }
  });
}

}  // namespace

void fill_adam(Kernels& k) { k.adam = adam_loop; }

}  // namespace SPLATRENDER_ISA
}  // namespace splatrender
