// Photometric loss of one image and its gradient in one sweep over its rows.
//
// A tile of the image is swept downwards, kGroup rows at a time. Per group, all in the nearest caches:
//
//   load        rows of u = x + y and v = x - y                      into rings of the last rows
//   down        windows of u, v, u², v² along columns                from the rings
//   across      the same along rows, then 1 - S and its three slopes per pixel, then the slopes' windows along rows
//   down again  the slopes' windows along columns, and with them the gradient of rows that are kSsimRadius higher
//
// Colours stay interleaved: the neighbour of a number is 3 numbers away, and a row has no seams. Pixels outside the
// image are 0. Sums are per row of a tile and in double, so nothing depends on the number of threads.
#include <cmath>

#include "../math/ssim.h"
#include "kernels.h"
#include "stage_table.h"

namespace splatrender {
inline namespace SPLATRENDER_ISA {
namespace {

constexpr int kGroup = 4;                         // rows at a time: each row read from a ring serves so many windows
constexpr int kRows = kGroup + 2 * kSsimRadius;   // rows that the windows of a group reach
constexpr int kRing = 16;                         // rows in a ring: at least kRows, a power of two
constexpr int kReach = 3 * kSsimRadius;           // numbers that a window reaches to the left and to the right
constexpr int kMargin = 48;                       // numbers before and after a row: two reaches and a pack
static_assert(kRing >= kRows && (kRing & (kRing - 1)) == 0 && kMargin >= 2 * kReach + 16 && kMargin % 16 == 0, "");

template <class T>
using Lanes = Pack<T, lanes_of<T>>;

// Rows [r0, r1) and columns [c0, c1) of the image, and the memory of a sweep over them.
template <class T>
struct Tile {
  const LossArgs<T>& a;
  int r0, r1, c0, c1;
  double* partial = nullptr;  // [r1-r0, 2]
  int64_t n = 0;              // numbers in a row, 3 (c1-c0)
  int64_t stride = 0;         // from row to row of the scratch memory
  T* base = nullptr;
  Lanes<T> weights[kSsimRadius + 1] = {};  // of the window, relative to the one in its middle
  T scale = 0;                             // that makes the weights of the square window add up to 1
  T by_difference = 0, by_similarity = 0;  // what |v| and 1 - S of a number count

  T* row(int i) const { return base + i * stride; }
  T* u(int y) const { return row(y & (kRing - 1)); }
  T* v(int y) const { return row(kRing + (y & (kRing - 1))); }
  T* slope(int k, int y) const { return row((2 + k) * kRing + (y & (kRing - 1))); }      // k < 3, windows along rows
  T* mean(int k, int g) const { return row(5 * kRing + k * kGroup + g); }  // k < 4, windows along columns
  T* pixel(int k) const { return row(5 * kRing + 4 * kGroup + k); }  // k < 3 slopes, 3: 1 - S
  bool inside(int y) const { return y >= 0 && y < a.height; }
  // numbers of the image that are at most `reach` outside the tile
  int64_t first(int64_t reach) const { return 3 * int64_t(c0) < reach ? -3 * int64_t(c0) : -reach; }
  int64_t last(int64_t reach) const {
    const int64_t rest = 3 * int64_t(a.width - c1);
    return n + (rest < reach ? rest : reach);
  }
};
constexpr int kTileRows = 5 * kRing + 4 * kGroup + 4;

template <class T>
void zero(T* row, int64_t begin, int64_t end) {
  for (int64_t i = begin; i < end; ++i) row[i] = 0;
}

// Zeroes the numbers [begin, end) of the row of image row y where the mask leaves the pixel out.
template <class T>
void apply_mask(const Tile<T>& t, int y, T* row, int64_t begin, int64_t end) {
  if (!t.a.mask) return;
  const uint8_t* const here = t.a.mask + int64_t(y) * t.a.width + t.c0;
  const uint8_t *p = here + begin / 3, *const stop = here + end / 3;
  while (p < stop && (p = static_cast<const uint8_t*>(std::memchr(p, 0, stop - p))))
    for (; p < stop && !*p; ++p)
      for (int k = 0; k < 3; ++k) row[3 * (p - here) + k] = 0;
}

template <class T>
void load_row(const Tile<T>& t, int y) {
  T *u = t.u(y), *v = t.v(y);
  const int64_t begin = t.first(2 * kReach), end = t.last(2 * kReach);
  if (!t.inside(y)) return zero(u, begin, end), zero(v, begin, end);
  const int64_t at = 3 * (int64_t(y) * t.a.width + t.c0);
  const T* x = t.a.radiance + at;
  if (const T* photo = t.a.photo) {
    for (int64_t i = begin; i < end; ++i) u[i] = x[i] + photo[at + i], v[i] = x[i] - photo[at + i];
  } else {
    const uint8_t* bytes = t.a.photo_bytes + at;
    for (int64_t i = begin; i < end; ++i) {
      const T value = T(bytes[i]) / T(255);
      u[i] = x[i] + value, v[i] = x[i] - value;
    }
  }
  apply_mask(t, y, u, begin, end);
  apply_mask(t, y, v, begin, end);
}

// Windows of kGroup rows below one another. The window is symmetric: rows at the same distance are added first. Its
// middle weighs 1 (Tile::scale makes up for it), which also leaves the compiler one way only to fuse the products.
template <class S>
SR_INLINE void windows_down(const S* rows, const S* weights, S* out) {
#pragma GCC unroll 8
  for (int g = 0; g < kGroup; ++g) {
    S sum = rows[g + kSsimRadius];
#pragma GCC unroll 8
    for (int k = 1; k <= kSsimRadius; ++k) sum += weights[k] * (rows[g + kSsimRadius - k] + rows[g + kSsimRadius + k]);
    out[g] = sum;
  }
}
template <class S, class T>
SR_INLINE S window_across(const T* p, const S* weights) {
  S sum = S::load(p);
#pragma GCC unroll 8
  for (int k = 1; k <= kSsimRadius; ++k) sum += weights[k] * (S::load(p - 3 * k) + S::load(p + 3 * k));
  return sum;
}

// Windows along columns of u, v, u², v² for the image rows y .. y+kGroup-1.
template <class T>
void means_down(const Tile<T>& t, int y) {
  using S = Lanes<T>;
  for (int k = 0; k < 2; ++k) {
    const T* in[kRows];
    for (int j = 0; j < kRows; ++j) in[j] = k ? t.v(y - kSsimRadius + j) : t.u(y - kSsimRadius + j);
    for (int64_t i = -2 * 16; i < t.n + 2 * kReach; i += lanes_of<T>) {
      S rows[kRows], out[kGroup];
#pragma GCC unroll 16
      for (int j = 0; j < kRows; ++j) rows[j] = S::load(in[j] + i);
      windows_down(rows, t.weights, out);
#pragma GCC unroll 8
      for (int g = 0; g < kGroup; ++g) out[g].store(t.mean(k, g) + i);
#pragma GCC unroll 16
      for (int j = 0; j < kRows; ++j) rows[j] *= rows[j];
      windows_down(rows, t.weights, out);
#pragma GCC unroll 8
      for (int g = 0; g < kGroup; ++g) out[g].store(t.mean(2 + k, g) + i);
    }
  }
}

// 1 - S of the image row y, and the windows along it of its slopes.
template <class T>
void similarity_row(const Tile<T>& t, int y, int g) {
  using S = Lanes<T>;
  const T *u = t.mean(0, g), *v = t.mean(1, g), *uu = t.mean(2, g), *vv = t.mean(3, g);
  T *constant = t.pixel(0), *sum = t.pixel(1), *difference = t.pixel(2), *unlike = t.pixel(3);
  for (int64_t i = -16; i < t.n + kReach; i += lanes_of<T>) {
    const S scale(t.scale);
    const SsimMeans<S> m{scale * window_across(u + i, t.weights), scale * window_across(v + i, t.weights),
                         scale * window_across(uu + i, t.weights), scale * window_across(vv + i, t.weights)};
    SsimSlopes<S> slopes;
    dissimilarity(m, slopes).store(unlike + i);
    slopes.constant.store(constant + i), slopes.sum.store(sum + i), slopes.difference.store(difference + i);
  }
  apply_mask(t, y, unlike, 0, t.n);
  if (!t.a.grad) return;
  for (int k = 0; k < 3; ++k) {
    T* slope = t.pixel(k);
    const int64_t begin = t.first(kReach), end = t.last(kReach);
    zero(slope, -16, begin), zero(slope, end, t.n + kReach);
    apply_mask(t, y, slope, begin, end);
    T* out = t.slope(k, y);
    for (int64_t i = 0; i < t.n; i += lanes_of<T>) window_across(slope + i, t.weights).store(out + i);
  }
}

// Σ f(row[i]) in double, in an order that depends on n alone.
template <class T, class F>
double sum_of(const T* row, int64_t n, const F& f) {
  constexpr int L = lanes_of<double>, kSums = 4;  // sums side by side, because one waits for its last addition
  using Wide = Pack<double, L>;
  Wide sums[kSums] = {0.0, 0.0, 0.0, 0.0};
  int64_t i = 0;
  for (; i + kSums * L <= n; i += kSums * L) {
#pragma GCC unroll 4
    for (int k = 0; k < kSums; ++k) {
      Wide x;
      x.v = __builtin_convertvector(Pack<T, L>::load(row + i + k * L).v, typename Wide::V);
      sums[k] += f(x);
    }
  }
  double sum = 0;
  for (int k = 0; k < kSums; ++k) sum += horizontal_sum(sums[k]);
  for (; i < n; ++i) sum += f(double(row[i]));
  return sum;
}

// Gradient of the image rows y .. y+kGroup-1, as far as they are rows of the tile.
template <class T>
void gradient_rows(const Tile<T>& t, int y) {
  using S = Lanes<T>;
  const S none(T(0)), by_difference(t.by_difference), by_similarity(t.by_similarity);
  const T* in[3][kRows];
  for (int k = 0; k < 3; ++k)
    for (int j = 0; j < kRows; ++j) in[k][j] = t.slope(k, y - kSsimRadius + j);
  T* scratch[kGroup];
  for (int g = 0; g < kGroup; ++g) scratch[g] = t.mean(0, g);  // free again
  for (int64_t i = 0; i < t.n; i += lanes_of<T>) {
    S slopes[3][kGroup];
#pragma GCC unroll 4
    for (int k = 0; k < 3; ++k) {
      S rows[kRows];
#pragma GCC unroll 16
      for (int j = 0; j < kRows; ++j) rows[j] = S::load(in[k][j] + i);
      windows_down(rows, t.weights, slopes[k]);
    }
#pragma GCC unroll 8
    for (int g = 0; g < kGroup; ++g) {
      const S u = S::load(t.u(y + g) + i), v = S::load(t.v(y + g) + i);
      const S sign = select(v > none, by_difference, select(v < none, -by_difference, none));
      (sign + by_similarity * (slopes[0][g] + u * slopes[1][g] + v * slopes[2][g])).store(scratch[g] + i);
    }
  }
  for (int g = 0; g < kGroup; ++g) {
    if (y + g < t.r0 || y + g >= t.r1) continue;
    apply_mask(t, y + g, scratch[g], 0, t.n);
    std::memcpy(t.a.grad + 3 * (int64_t(y + g) * t.a.width + t.c0), scratch[g], t.n * sizeof(T));
  }
}

template <class T>
void sweep(const Tile<T>& t) {
  zero(t.base - kMargin, 0, kTileRows * t.stride);
  const int reach = t.a.grad ? kSsimRadius : 0;
  int loaded = t.r0 - reach - kSsimRadius;
  for (int y = t.r0 - reach; y < t.r1 + reach; y += kGroup) {
    for (; loaded < y + kGroup + kSsimRadius; ++loaded) load_row(t, loaded);
    means_down(t, y);
    for (int g = 0; g < kGroup; ++g) {
      if (!t.inside(y + g)) {
        for (int k = 0; k < 3; ++k) zero(t.slope(k, y + g), 0, t.n);
        continue;
      }
      similarity_row(t, y + g, g);
      if (y + g < t.r0 || y + g >= t.r1) continue;
      double* sums = t.partial + 2 * (y + g - t.r0);
      sums[0] = sum_of(t.v(y + g), t.n, [](auto x) { return smax(x, -x); });
      sums[1] = sum_of(t.pixel(3), t.n, [](auto x) { return x; });
    }
    if (t.a.grad && y + kGroup - kSsimRadius > t.r0) gradient_rows(t, y - kSsimRadius);
  }
}

template <class T>
void loss_loop(const LossArgs<T>& a) {
  const int64_t pixels = int64_t(a.height) * a.width;
  int64_t kept = pixels;
  if (a.mask) {
    kept = 0;
    for (int64_t i = 0; i < pixels; ++i) kept += a.mask[i] != 0;
  }
  const double share = kept ? 1.0 / (3.0 * double(kept)) : 0.0;
  double weights[kSsimRadius + 1], total = 0;
  for (int k = 0; k <= kSsimRadius; ++k) {
    weights[k] = std::exp(-k * k / (2 * kSsimSigma * kSsimSigma));
    total += k ? 2 * weights[k] : weights[k];
  }
  // Strips of at most kLossStrip columns keep the rings in the nearest caches, whatever the image; their places must
  // not depend on the number of threads. Bands of rows may: every row has sums of its own.
  const int strips = a.strips, workers = worker_count();
  const int wanted = workers > 1 ? (2 * workers + strips - 1) / strips : 1;
  int rows = (a.height + wanted - 1) / wanted;
  if (rows < 8 * kGroup) rows = 8 * kGroup;
  rows = (rows + kGroup - 1) / kGroup * kGroup;
  const int bands = (a.height + rows - 1) / rows;
  parallel_for(int64_t(strips) * bands, [&](int64_t job) {
    static thread_local Scratch memory;
    const int strip = int(job % strips), band = int(job / strips);
    Tile<T> t{a, band * rows, (band + 1) * rows, int(int64_t(a.width) * strip / strips),
              int(int64_t(a.width) * (strip + 1) / strips)};
    if (t.r1 > a.height) t.r1 = a.height;
    t.partial = a.partial + 2 * (int64_t(strip) * a.height + t.r0);
    t.n = 3 * int64_t(t.c1 - t.c0);
    t.stride = (t.n + 15) / 16 * 16 + 2 * kMargin + 16;
    t.base = memory.template get<T>(kTileRows * t.stride) + kMargin;
    for (int k = 0; k <= kSsimRadius; ++k) t.weights[k] = Lanes<T>(T(weights[k]));
    t.scale = T(1 / (total * total));
    t.by_difference = T((1 - a.ssim_weight) * share), t.by_similarity = T(a.ssim_weight * share / (total * total));
    sweep(t);
  });
  double difference = 0, unlike = 0;
  for (int64_t i = 0; i < int64_t(strips) * a.height; ++i)
    difference += a.partial[2 * i], unlike += a.partial[2 * i + 1];
  difference *= share, unlike *= share;
  *a.loss = T((1 - a.ssim_weight) * difference + a.ssim_weight * unlike);
  *a.l1 = T(difference), *a.ssim = T(1 - unlike);
}

}  // namespace

template <class T>
void fill_loss(Stages<T>& s) {
  s.loss = loss_loop<T>;
}
template void fill_loss<float>(Stages<float>&);
template void fill_loss<double>(Stages<double>&);

}  // namespace SPLATRENDER_ISA
}  // namespace splatrender
