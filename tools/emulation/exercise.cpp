// Every stage, forward and backward, on a small random scene, through csrc/cuda/stages_cuda.h and raw pointers: what
// the sanitizer builds run. Every array is an allocation of its own, exactly as long as its shape says, and full of NaN
// before it is written. Prints the sum of each output; fails when one is not finite.
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "../../csrc/cuda/stages_cuda.h"

namespace {

using namespace splatrender;  // NOLINT: the stages' own names

struct Case {
  const char* name;
  int64_t N, C, D;
  int width, height, response, degree, coefficients;
  bool antialiased, with_factors;
  double largest = 0.3;  // scale
};

struct Free {
  void operator()(void* memory) const { std::free(memory); }
};
using Memory = std::unique_ptr<void, Free>;
// As aligned as CUDA's, as long as asked for, and full of NaN, or of -1.
Memory allocate(int64_t bytes) {
  void* memory = nullptr;
  if (posix_memalign(&memory, 256, size_t(bytes)) != 0) std::abort();
  return Memory(std::memset(memory, 0xff, size_t(bytes)));
}

// Scratch memory of one call, and what to do when it fails.
class Call {
 public:
  Call() {
    context_.owner = this;
    context_.allocate = [](void* self, int64_t bytes) -> void* {
      auto& blocks = static_cast<Call*>(self)->blocks_;
      blocks.push_back(allocate(bytes));
      return blocks.back().get();
    };
  }
  cuda::Context& context() { return context_; }
  void require(const cuda::Status& status) const {
    if (!status.failed()) return;
    std::fprintf(stderr, "%s: %s\n", status.kernel, status.what);
    std::exit(2);
  }

 private:
  std::vector<Memory> blocks_;
  cuda::Context context_;
};

template <class T>
class Array {
 public:
  explicit Array(int64_t count) : count_(count), data_(allocate(count * int64_t(sizeof(T)))) {}
  T* get() const { return static_cast<T*>(data_.get()); }
  int64_t count() const { return count_; }
  template <class F>
  const Array& fill(const F& f) const {
    for (int64_t i = 0; i < count_; ++i) get()[i] = T(f(i));
    return *this;
  }
  const Array& print(const char* name) const {
    double sum = 0;
    for (int64_t i = 0; i < count_; ++i) sum += double(get()[i]);
    std::printf("  %-22s %.6g\n", name, sum);
    if (std::isfinite(sum)) return *this;
    std::fprintf(stderr, "%s is not finite: something was not written\n", name);
    std::exit(4);
  }

 private:
  int64_t count_;
  Memory data_;
};

template <class T>
void render(const Case& k) {
  std::mt19937 random(1);
  const auto uniform = [&](double low, double high) {
    return [&random, low, high](int64_t) { return low + (high - low) * (double(random()) / 4294967296.0); };
  };
  const auto camera = [&](int64_t i) { return i % 16 % 5 == 0 ? 1.0 : i % 16 == 3 ? 0.2 * double(i / 16) : 0.0; };
  const int64_t N = k.N, C = k.C, D = k.D, K = k.coefficients, pixels = int64_t(k.width) * k.height;
  const Array<T> means(3 * N), quats(4 * N), scales(3 * N), factors(9 * N), amplitudes(N);
  const Array<T> viewmats(16 * C), intrinsics(4 * C), sh(N * K * 3), backgrounds(C * D);
  means.fill([&](int64_t i) { return i % 3 == 2 ? uniform(2, 4)(i) : uniform(-1.2, 1.2)(i); });
  quats.fill(uniform(-1, 1)), scales.fill(uniform(0.1 * k.largest, k.largest)), factors.fill(uniform(-0.2, 0.2));
  amplitudes.fill(uniform(0.1, 0.9)), sh.fill(uniform(-0.5, 0.5)), backgrounds.fill(uniform(0, 1));
  viewmats.fill(camera);
  intrinsics.fill([&](int64_t i) { return i % 4 < 2 ? 0.9 * k.width : i % 4 == 2 ? k.width / 2.0 : k.height / 2.0; });

  const Array<T> means2d(2 * C * N), conics(3 * C * N), depths(C * N), peaks(C * N), extents(2 * C * N);
  ProjectArgs<T> p{};
  p.N = N, p.C = C;
  p.means = means.get(), p.amplitudes = amplitudes.get();
  if (k.with_factors) {
    p.factors = factors.get();
  } else {
    p.quats = quats.get(), p.scales = scales.get();
  }
  p.viewmats = viewmats.get(), p.intrinsics = intrinsics.get();
  p.width = k.width, p.height = k.height;
  p.near_plane = 0.1, p.far_plane = 100, p.eps2d = 0.3;
  p.antialiased = k.antialiased, p.response = k.response;
  p.means2d = means2d.get(), p.conics = conics.get(), p.depths = depths.get();
  p.peaks = peaks.get(), p.extents = extents.get();
  Call project_call;
  project_call.require(cuda::project(p, project_call.context()));
  means2d.print("means2d"), conics.print("conics"), peaks.print("peaks");

  const Array<T> light(3 * C * N);
  ShadeArgs<T> s{};
  s.N = N, s.C = C, s.K = int(K), s.degree = k.degree;
  s.means = means.get(), s.sh = sh.get(), s.viewmats = viewmats.get(), s.extents = extents.get();
  s.emission = light.get();
  Call shade_call;
  shade_call.require(cuda::shade(s, shade_call.context()));
  light.print("emission");

  const int64_t tiles = int64_t((k.width + kTile - 1) / kTile) * ((k.height + kTile - 1) / kTile);
  const Array<int32_t> tile_offsets(C * tiles + 1), splat_offsets(C * N + 1);
  BinArgs<T> b{};
  b.N = N, b.C = C, b.width = k.width, b.height = k.height;
  b.means2d = means2d.get(), b.conics = conics.get(), b.depths = depths.get();
  b.peaks = peaks.get(), b.extents = extents.get();
  b.tile_offsets = tile_offsets.get(), b.splat_offsets = splat_offsets.get();
  Call bin_call;
  cuda::BinState state;
  bin_call.require(cuda::bin_count(b, bin_call.context(), state));
  const int64_t P = state.pairs;
  const Array<int32_t> splat_ids(P), slots(P);
  b.splat_ids = splat_ids.get(), b.slots = slots.get();
  bin_call.require(cuda::bin_fill(b, bin_call.context(), state));
  splat_ids.print("splat_ids"), slots.print("slots");

  const Array<T> emission(C * N * D), radiance(C * pixels * D), transmittance(C * pixels), visibility(C * N);
  const Array<int32_t> last(C * pixels);
  const Array<int16_t> hits(P);
  emission.fill([&](int64_t i) { return i % D < 3 ? light.get()[i / D * 3 + i % D] : uniform(0, 1)(i); });
  BlendArgs<T> r{};
  r.N = N, r.C = C, r.D = D, r.P = P;
  r.width = k.width, r.height = k.height, r.response = k.response;
  r.means2d = means2d.get(), r.conics = conics.get(), r.peaks = peaks.get();
  r.emission = emission.get(), r.backgrounds = backgrounds.get();
  r.tile_offsets = tile_offsets.get(), r.splat_ids = splat_ids.get();
  r.slots = slots.get(), r.splat_offsets = splat_offsets.get();
  r.radiance = radiance.get(), r.transmittance = transmittance.get(), r.visibility = visibility.get();
  r.last = last.get(), r.hits = hits.get();
  Call blend_call;
  blend_call.require(cuda::blend(r, blend_call.context()));
  radiance.print("radiance"), transmittance.print("transmittance"), visibility.print("visibility");

  const Array<T> d_radiance(C * pixels * D), d_transmittance(C * pixels);
  d_radiance.fill(uniform(-1, 1)), d_transmittance.fill(uniform(-1, 1));
  const Array<T> d_means2d(2 * C * N), d_conics(3 * C * N), d_peaks(C * N), d_emission(C * N * D);
  const Array<T> absgrad(2 * C * N);
  BlendGrads<T> rg{};
  rg.radiance = d_radiance.get(), rg.transmittance = d_transmittance.get();
  rg.means2d = d_means2d.get(), rg.conics = d_conics.get(), rg.peaks = d_peaks.get(), rg.emission = d_emission.get();
  Call blend_backward_call;
  blend_backward_call.require(cuda::blend_backward(r, rg, blend_backward_call.context()));
  d_means2d.print("grad means2d"), d_conics.print("grad conics"), d_emission.print("grad emission");
  if (D <= kAbsgradChannels) {
    rg.absgrad = absgrad.get();
    Call absgrad_call;
    absgrad_call.require(cuda::blend_backward(r, rg, absgrad_call.context()));
    absgrad.print("absgrad");
  }

  const int64_t partials = cuda::camera_chunks(N) * C * 16 + 1;
  const Array<T> d_light(3 * C * N), d_means(3 * N), d_sh(N * K * 3), d_views(16 * C);
  const Array<double> shade_partial(partials), project_partial(partials);
  d_light.fill([&](int64_t i) { return d_emission.get()[i / 3 * D + (i % 3 < D ? i % 3 : 0)]; });
  const ShadeGrads<T> sg{d_light.get(), d_means.get(), d_sh.get(), d_views.get(), shade_partial.get()};
  Call shade_backward_call;
  shade_backward_call.require(cuda::shade_backward(s, sg, shade_backward_call.context()));
  d_means.print("grad means (shade)"), d_sh.print("grad sh"), d_views.print("grad viewmats (shade)");

  const Array<T> d_depths(C * N), e_means(3 * N), e_quats(4 * N), e_scales(3 * N), e_factors(9 * N);
  const Array<T> e_amplitudes(N), e_views(16 * C), e_intrinsics(4 * C);
  d_depths.fill(uniform(-1, 1));
  ProjectGrads<T> pg{};
  pg.means2d = d_means2d.get(), pg.conics = d_conics.get(), pg.depths = d_depths.get(), pg.peaks = d_peaks.get();
  pg.means = e_means.get(), pg.amplitudes = e_amplitudes.get(), pg.viewmats = e_views.get();
  pg.intrinsics = e_intrinsics.get(), pg.partial = project_partial.get();
  if (k.with_factors) {
    pg.factors = e_factors.get();
  } else {
    pg.quats = e_quats.get(), pg.scales = e_scales.get();
  }
  Call project_backward_call;
  project_backward_call.require(cuda::project_backward(p, pg, project_backward_call.context()));
  e_means.print("grad means"), e_views.print("grad viewmats"), e_intrinsics.print("grad intrinsics");
  if (k.with_factors) {
    e_factors.print("grad factors");
  } else {
    e_quats.print("grad quats"), e_scales.print("grad scales");
  }
}

template <class T>
void compare(int width, int height, bool bytes, bool masked) {
  const int64_t numbers = int64_t(width) * height * 3;
  const int strips = (width + kLossStrip - 1) / kLossStrip;
  const Array<T> radiance(numbers), photo(numbers), grad(numbers), loss(1), l1(1), ssim(1);
  const Array<uint8_t> photo_bytes(numbers), mask(int64_t(width) * height);
  const Array<double> partial(2 * int64_t(strips) * height);
  radiance.fill([](int64_t i) { return double(i * 37 % 101) / 100; });
  photo.fill([](int64_t i) { return double(i * 53 % 97) / 96; });
  photo_bytes.fill([](int64_t i) { return i * 53 % 256; });
  mask.fill([](int64_t i) { return i % 7 != 0; });
  LossArgs<T> a{};
  a.width = width, a.height = height, a.strips = strips, a.ssim_weight = 0.2;
  a.radiance = radiance.get();
  a.photo = bytes ? nullptr : photo.get();
  a.photo_bytes = bytes ? photo_bytes.get() : nullptr;
  a.mask = masked ? mask.get() : nullptr;
  a.loss = loss.get(), a.l1 = l1.get(), a.ssim = ssim.get(), a.grad = grad.get(), a.partial = partial.get();
  Call call;
  call.require(cuda::loss(a, call.context()));
  loss.print("loss"), ssim.print("ssim"), grad.print("grad radiance");
}

void move_parameters() {
  const int64_t N = 300, row = 12;
  const Array<float> param(N * row), grad(N * row), first(N * row), second(N * row), lr(4);
  const Array<int32_t> steps(N);
  const Array<uint8_t> rows(N);
  param.fill([](int64_t i) { return double(i % 11) / 7; }), grad.fill([](int64_t i) { return double(i % 13) - 6; });
  first.fill([](int64_t) { return 0; }), second.fill([](int64_t) { return 0; });
  lr.fill([](int64_t i) { return 0.01 * double(i + 1); }), steps.fill([](int64_t i) { return i % 5; });
  rows.fill([](int64_t i) { return i % 3 != 0; });
  AdamArgs a{};
  a.N = N, a.row = row, a.columns = 4;
  a.beta1 = 0.9, a.beta2 = 0.999, a.eps = 1e-15, a.advance = true;
  a.param = param.get(), a.grad = grad.get(), a.exp_avg = first.get(), a.exp_avg_sq = second.get();
  a.steps = steps.get(), a.rows = rows.get(), a.lr = lr.get();
  Call call;
  call.require(cuda::adam(a, call.context()));
  param.print("param"), steps.print("steps");
}

}  // namespace

int main() {
  // Images that are no multiple of the tile, tiles with no splat and with more than two batches of 128, harmonics of
  // which some are not used, splats whose tiles a whole warp goes through.
  const Case cases[] = {
      {"gaussian", 70, 2, 3, 37, 21, 0, 2, 9, true, false},
      {"beer_lambert", 60, 1, 5, 20, 18, 1, 3, 16, false, true},
      {"heavy tiles", 330, 1, 3, 18, 16, 0, 1, 9, false, false},
      {"many tiles", 5, 1, 3, 96, 192, 0, 0, 1, false, false, 3.0},
      {"nothing", 0, 1, 3, 20, 10, 0, 0, 1, false, false},
  };
  for (const Case& k : cases) {
    std::printf("%s, float\n", k.name);
    render<float>(k);
  }
  std::printf("%s, double\n", cases[1].name);
  render<double>(cases[1]);
  std::printf("loss\n");
  compare<float>(41, 23, true, false);
  compare<double>(20, 15, false, true);
  std::printf("adam\n");
  move_parameters();
  std::printf("finished\n");
  return 0;
}
