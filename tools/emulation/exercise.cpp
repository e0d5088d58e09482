// Every stage, forward and backward, on a small random scene, through csrc/cuda/stages_cuda.h and raw pointers: what
// the sanitizer builds run. Every array is an allocation of its own, exactly as long as its shape, and full of NaN
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
// Memory aligned as CUDA's, exactly as long as requested, and full of NaN, or of -1.
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
  explicit Array(int64_t count = 0) : count_(count), data_(allocate(count * int64_t(sizeof(T)))) {}
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

// One case, stage after stage: each method runs one and keeps its outputs for the next.
template <class T>
class Rendering {
 public:
  explicit Rendering(const Case& k) : k_(k), pixels_(int64_t(k.width) * k.height) {}
  void project();
  void shade();
  void bin();
  void blend();
  void blend_backward();
  void shade_backward();
  void project_backward();

 private:
  auto uniform(double low, double high) {
    return [this, low, high](int64_t) { return low + (high - low) * (double(random_()) / 4294967296.0); };
  }
  int64_t views() const { return k_.C * k_.N; }  // rows of what depends on splat and camera
  int64_t partials() const { return cuda::camera_chunks(k_.N) * k_.C * 16 + 1; }

  const Case& k_;
  int64_t pixels_;
  std::mt19937 random_{1};
  ProjectArgs<T> p_{};
  ShadeArgs<T> s_{};
  BlendArgs<T> r_{};
  Array<T> means_, quats_, scales_, factors_, amplitudes_, viewmats_, intrinsics_;
  Array<T> means2d_, conics_, depths_, peaks_, extents_;
  Array<T> sh_, light_, emission_, backgrounds_, radiance_, transmittance_, visibility_;
  Array<int32_t> tile_offsets_, splat_offsets_, splat_ids_, slots_, last_;
  Array<int16_t> hits_;
  Array<T> d_means2d_, d_conics_, d_peaks_, d_emission_;
};

template <class T>
void Rendering<T>::project() {
  const int64_t N = k_.N, C = k_.C;
  const auto camera = [&](int64_t i) { return i % 16 % 5 == 0 ? 1.0 : i % 16 == 3 ? 0.2 * double(i / 16) : 0.0; };
  means_ = Array<T>(3 * N), quats_ = Array<T>(4 * N), scales_ = Array<T>(3 * N), factors_ = Array<T>(9 * N);
  amplitudes_ = Array<T>(N), viewmats_ = Array<T>(16 * C), intrinsics_ = Array<T>(4 * C);
  means_.fill([&](int64_t i) { return i % 3 == 2 ? uniform(2, 4)(i) : uniform(-1.2, 1.2)(i); });
  quats_.fill(uniform(-1, 1)), scales_.fill(uniform(0.1 * k_.largest, k_.largest)), factors_.fill(uniform(-0.2, 0.2));
  amplitudes_.fill(uniform(0.1, 0.9));
  viewmats_.fill(camera);
  intrinsics_.fill([&](int64_t i) {
    return i % 4 < 2 ? 0.9 * k_.width : i % 4 == 2 ? k_.width / 2.0 : k_.height / 2.0;
  });
  means2d_ = Array<T>(2 * views()), conics_ = Array<T>(3 * views()), depths_ = Array<T>(views());
  peaks_ = Array<T>(views()), extents_ = Array<T>(2 * views());
  p_.N = N, p_.C = C;
  p_.means = means_.get(), p_.amplitudes = amplitudes_.get();
  if (k_.with_factors) {
    p_.factors = factors_.get();
  } else {
    p_.quats = quats_.get(), p_.scales = scales_.get();
  }
  p_.viewmats = viewmats_.get(), p_.intrinsics = intrinsics_.get();
  p_.width = k_.width, p_.height = k_.height;
  p_.near_plane = 0.1, p_.far_plane = 100, p_.eps2d = 0.3;
  p_.antialiased = k_.antialiased, p_.response = k_.response;
  p_.means2d = means2d_.get(), p_.conics = conics_.get(), p_.depths = depths_.get();
  p_.peaks = peaks_.get(), p_.extents = extents_.get();
  Call call;
  call.require(cuda::project(p_, call.context()));
  means2d_.print("means2d"), conics_.print("conics"), peaks_.print("peaks");
}

template <class T>
void Rendering<T>::shade() {
  sh_ = Array<T>(k_.N * k_.coefficients * 3), light_ = Array<T>(3 * views());
  sh_.fill(uniform(-0.5, 0.5));
  s_.N = k_.N, s_.C = k_.C, s_.K = int(k_.coefficients), s_.degree = k_.degree;
  s_.means = means_.get(), s_.sh = sh_.get(), s_.viewmats = viewmats_.get(), s_.extents = extents_.get();
  s_.emission = light_.get();
  Call call;
  call.require(cuda::shade(s_, call.context()));
  light_.print("emission");
}

template <class T>
void Rendering<T>::bin() {
  const int64_t tiles = int64_t((k_.width + kTile - 1) / kTile) * ((k_.height + kTile - 1) / kTile);
  tile_offsets_ = Array<int32_t>(k_.C * tiles + 1), splat_offsets_ = Array<int32_t>(views() + 1);
  BinArgs<T> b{};
  b.N = k_.N, b.C = k_.C, b.width = k_.width, b.height = k_.height;
  b.means2d = means2d_.get(), b.conics = conics_.get(), b.depths = depths_.get();
  b.peaks = peaks_.get(), b.extents = extents_.get();
  b.tile_offsets = tile_offsets_.get(), b.splat_offsets = splat_offsets_.get();
  Call call;
  cuda::BinState state;
  call.require(cuda::bin_count(b, call.context(), state));
  splat_ids_ = Array<int32_t>(state.pairs), slots_ = Array<int32_t>(state.pairs);
  b.splat_ids = splat_ids_.get(), b.slots = slots_.get();
  call.require(cuda::bin_fill(b, call.context(), state));
  splat_ids_.print("splat_ids"), slots_.print("slots");
}

template <class T>
void Rendering<T>::blend() {
  const int64_t C = k_.C, D = k_.D, P = splat_ids_.count();
  backgrounds_ = Array<T>(C * D), emission_ = Array<T>(views() * D), radiance_ = Array<T>(C * pixels_ * D);
  transmittance_ = Array<T>(C * pixels_), visibility_ = Array<T>(views());
  last_ = Array<int32_t>(C * pixels_), hits_ = Array<int16_t>(P);
  backgrounds_.fill(uniform(0, 1));
  emission_.fill([&](int64_t i) { return i % D < 3 ? double(light_.get()[i / D * 3 + i % D]) : uniform(0, 1)(i); });
  r_.N = k_.N, r_.C = C, r_.D = D, r_.P = P;
  r_.width = k_.width, r_.height = k_.height, r_.response = k_.response;
  r_.means2d = means2d_.get(), r_.conics = conics_.get(), r_.peaks = peaks_.get();
  r_.emission = emission_.get(), r_.backgrounds = backgrounds_.get();
  r_.tile_offsets = tile_offsets_.get(), r_.splat_ids = splat_ids_.get();
  r_.slots = slots_.get(), r_.splat_offsets = splat_offsets_.get();
  r_.radiance = radiance_.get(), r_.transmittance = transmittance_.get(), r_.visibility = visibility_.get();
  r_.last = last_.get(), r_.hits = hits_.get();
  Call call;
  call.require(cuda::blend(r_, call.context()));
  radiance_.print("radiance"), transmittance_.print("transmittance"), visibility_.print("visibility");
}

template <class T>
void Rendering<T>::blend_backward() {
  const Array<T> d_radiance(k_.C * pixels_ * k_.D), d_transmittance(k_.C * pixels_), absgrad(2 * views());
  d_radiance.fill(uniform(-1, 1)), d_transmittance.fill(uniform(-1, 1));
  d_means2d_ = Array<T>(2 * views()), d_conics_ = Array<T>(3 * views()), d_peaks_ = Array<T>(views());
  d_emission_ = Array<T>(views() * k_.D);
  BlendGrads<T> g{};
  g.radiance = d_radiance.get(), g.transmittance = d_transmittance.get();
  g.means2d = d_means2d_.get(), g.conics = d_conics_.get(), g.peaks = d_peaks_.get(), g.emission = d_emission_.get();
  Call call;
  call.require(cuda::blend_backward(r_, g, call.context()));
  d_means2d_.print("grad means2d"), d_conics_.print("grad conics"), d_emission_.print("grad emission");
  if (k_.D > kAbsgradChannels) return;
  g.absgrad = absgrad.get();
  Call absgrad_call;
  absgrad_call.require(cuda::blend_backward(r_, g, absgrad_call.context()));
  absgrad.print("absgrad");
}

template <class T>
void Rendering<T>::shade_backward() {
  const int64_t D = k_.D;
  const Array<T> d_light(3 * views()), d_means(3 * k_.N), d_sh(k_.N * k_.coefficients * 3), d_views(16 * k_.C);
  const Array<double> partial(partials());
  d_light.fill([&](int64_t i) { return d_emission_.get()[i / 3 * D + (i % 3 < D ? i % 3 : 0)]; });
  const ShadeGrads<T> g{d_light.get(), d_means.get(), d_sh.get(), d_views.get(), partial.get()};
  Call call;
  call.require(cuda::shade_backward(s_, g, call.context()));
  d_means.print("grad means (shade)"), d_sh.print("grad sh"), d_views.print("grad viewmats (shade)");
}

template <class T>
void Rendering<T>::project_backward() {
  const int64_t N = k_.N, C = k_.C;
  const Array<T> d_depths(views()), d_means(3 * N), d_quats(4 * N), d_scales(3 * N), d_factors(9 * N);
  const Array<T> d_amplitudes(N), d_views(16 * C), d_intrinsics(4 * C);
  const Array<double> partial(partials());
  d_depths.fill(uniform(-1, 1));
  ProjectGrads<T> g{};
  g.means2d = d_means2d_.get(), g.conics = d_conics_.get(), g.depths = d_depths.get(), g.peaks = d_peaks_.get();
  g.means = d_means.get(), g.amplitudes = d_amplitudes.get(), g.viewmats = d_views.get();
  g.intrinsics = d_intrinsics.get(), g.partial = partial.get();
  if (k_.with_factors) {
    g.factors = d_factors.get();
  } else {
    g.quats = d_quats.get(), g.scales = d_scales.get();
  }
  Call call;
  call.require(cuda::project_backward(p_, g, call.context()));
  d_means.print("grad means"), d_views.print("grad viewmats"), d_intrinsics.print("grad intrinsics");
  if (k_.with_factors) {
    d_factors.print("grad factors");
  } else {
    d_quats.print("grad quats"), d_scales.print("grad scales");
  }
}

template <class T>
void render(const Case& k) {
  Rendering<T> rendering(k);
  rendering.project();
  rendering.shade();
  rendering.bin();
  rendering.blend();
  rendering.blend_backward();
  rendering.shade_backward();
  rendering.project_backward();
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
