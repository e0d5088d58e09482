// A plain scalar rasterizer of the same formulas as splatrender's kernels: what they are timed against.
//
// The textbook algorithm, one thread, one number at a time: project; list splats by 16x16 tile and depth with one
// std::sort; blend every pixel front to back; walk back to front for gradients and add them up per splat. It uses the
// same bound of a splat by its opacity, and skips the exponential where a pixel lies outside of it, so that it is no
// straw man. What it leaves out is what the kernels are about: vectors, blocks of pixels, exact tile tests, threads.
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <utility>
#include <vector>

namespace {

constexpr int kTile = 16;
constexpr float kCutoff = 1.0f / 255.0f, kAlphaMax = 0.99f, kTransmittanceMin = 1e-4f;
constexpr float kBorder = 0.15f;  // of the picture's size: how far outside the Jacobian still follows a splat
constexpr int kSh = 16;

struct Vec3 {
  float x, y, z;
};
Vec3 operator+(Vec3 a, Vec3 b) { return {a.x + b.x, a.y + b.y, a.z + b.z}; }
Vec3 operator-(Vec3 a, Vec3 b) { return {a.x - b.x, a.y - b.y, a.z - b.z}; }
Vec3 operator*(float s, Vec3 a) { return {s * a.x, s * a.y, s * a.z}; }
float dot(Vec3 a, Vec3 b) { return a.x * b.x + a.y * b.y + a.z * b.z; }

struct Mat3 {
  Vec3 r[3];
};
Vec3 operator*(const Mat3& m, Vec3 v) { return {dot(m.r[0], v), dot(m.r[1], v), dot(m.r[2], v)}; }
Vec3 transposed_times(const Mat3& m, Vec3 v) { return v.x * m.r[0] + v.y * m.r[1] + v.z * m.r[2]; }
Mat3 transpose(const Mat3& m) {
  return {{{m.r[0].x, m.r[1].x, m.r[2].x}, {m.r[0].y, m.r[1].y, m.r[2].y}, {m.r[0].z, m.r[1].z, m.r[2].z}}};
}
Mat3 operator*(const Mat3& a, const Mat3& b) {
  const Mat3 t = transpose(b);
  return {{t * a.r[0], t * a.r[1], t * a.r[2]}};
}

struct Quat {
  float w, x, y, z;
};
Mat3 rotation(Quat q) {
  return {{{1 - 2 * (q.y * q.y + q.z * q.z), 2 * (q.x * q.y - q.w * q.z), 2 * (q.x * q.z + q.w * q.y)},
           {2 * (q.x * q.y + q.w * q.z), 1 - 2 * (q.x * q.x + q.z * q.z), 2 * (q.y * q.z - q.w * q.x)},
           {2 * (q.x * q.z - q.w * q.y), 2 * (q.y * q.z + q.w * q.x), 1 - 2 * (q.x * q.x + q.y * q.y)}}};
}

// Real spherical harmonics up to degree 3, and Σ_k w_k ∇Y_k.
void harmonics(Vec3 d, float* Y) {
  const float x = d.x, y = d.y, z = d.z, xx = x * x, yy = y * y, zz = z * z;
  Y[0] = 0.28209479177387814f;
  Y[1] = -0.4886025119029199f * y;
  Y[2] = 0.4886025119029199f * z;
  Y[3] = -0.4886025119029199f * x;
  Y[4] = 1.0925484305920792f * x * y;
  Y[5] = -1.0925484305920792f * y * z;
  Y[6] = 0.31539156525252005f * (2 * zz - xx - yy);
  Y[7] = -1.0925484305920792f * x * z;
  Y[8] = 0.5462742152960396f * (xx - yy);
  Y[9] = -0.5900435899266435f * y * (3 * xx - yy);
  Y[10] = 2.890611442640554f * x * y * z;
  Y[11] = -0.4570457994644658f * y * (4 * zz - xx - yy);
  Y[12] = 0.3731763325901154f * z * (2 * zz - 3 * xx - 3 * yy);
  Y[13] = -0.4570457994644658f * x * (4 * zz - xx - yy);
  Y[14] = 1.445305721320277f * z * (xx - yy);
  Y[15] = -0.5900435899266435f * x * (xx - 3 * yy);
}
Vec3 harmonics_gradient(Vec3 d, const float* w) {
  const float x = d.x, y = d.y, z = d.z, xx = x * x, yy = y * y, zz = z * z;
  Vec3 g = 0.4886025119029199f * Vec3{-w[3], -w[1], w[2]};
  g = g + 1.0925484305920792f * (w[4] * Vec3{y, x, 0} - w[5] * Vec3{0, z, y} - w[7] * Vec3{z, 0, x});
  g = g + 0.31539156525252005f * w[6] * Vec3{-2 * x, -2 * y, 4 * z} + 0.5462742152960396f * w[8] * Vec3{2 * x, -2 * y, 0};
  g = g - 0.5900435899266435f * w[9] * Vec3{6 * x * y, 3 * (xx - yy), 0};
  g = g + 2.890611442640554f * w[10] * Vec3{y * z, x * z, x * y};
  g = g - 0.4570457994644658f * w[11] * Vec3{-2 * x * y, 4 * zz - xx - 3 * yy, 8 * y * z};
  g = g + 0.3731763325901154f * w[12] * Vec3{-6 * x * z, -6 * y * z, 6 * zz - 3 * xx - 3 * yy};
  g = g - 0.4570457994644658f * w[13] * Vec3{4 * zz - 3 * xx - yy, -2 * x * y, 8 * x * z};
  g = g + 1.445305721320277f * w[14] * Vec3{2 * x * z, -2 * y * z, xx - yy};
  return g - 0.5900435899266435f * w[15] * Vec3{3 * (xx - yy), -6 * x * y, 0};
}

struct Scene {  // float pointers: [N,3], [N,4], [N,3], [N], [N,16,3]
  int64_t n;
  const float *means, *quats, *scales, *opacities, *sh;
};
struct View {
  Mat3 W;
  Vec3 t;
  float fx, fy, cx, cy, near_plane, eps2d;
  int width, height;
};

struct Footprint {  // what a pixel needs of a splat
  float x, y, xx, xy, yy, peak;
  float level;  // the response is above the cut-off where dᵀ conic d <= level
  float color[3];
};
struct FootprintGradient {
  float x, y, xx, xy, yy, peak, color[3];
};
struct Bound {
  float depth, half_width, half_height;  // half_width 0: not in the picture
};
struct Geometry {  // of the projection of one splat, used by both directions
  Quat unit;
  float norm;
  Mat3 R, M;
  Vec3 p, B0, B1;
  float u, v;
  bool inside_x, inside_y;
};

class Rasterizer {
 public:
  Rasterizer(const Scene& scene, const View& view) : s(scene), view(view), footprints(s.n), bounds(s.n) {
    columns = (view.width + kTile - 1) / kTile;
    rows = (view.height + kTile - 1) / kTile;
  }

  void project() {
    for (int64_t i = 0; i < s.n; ++i) {
      bounds[i] = {0, 0, 0};
      const Geometry g = geometry(i);
      if (!(g.p.z > view.near_plane)) continue;
      const float xx = dot(g.B0, g.B0) + view.eps2d, xy = dot(g.B0, g.B1), yy = dot(g.B1, g.B1) + view.eps2d;
      const float det = xx * yy - xy * xy, peak = s.opacities[i];
      if (!(det > 0) || peak < kCutoff) continue;
      const float x = view.fx * g.p.x / g.p.z + view.cx, y = view.fy * g.p.y / g.p.z + view.cy;
      const float level = 2 * std::log(255 * peak), ex = std::sqrt(level * xx), ey = std::sqrt(level * yy);
      if (x + ex < 0 || x - ex > view.width || y + ey < 0 || y - ey > view.height) continue;
      footprints[i] = {x, y, yy / det, -xy / det, xx / det, peak, level, {0, 0, 0}};
      bounds[i] = {g.p.z, ex, ey};
    }
  }

  void shade() {
    for (int64_t i = 0; i < s.n; ++i) {
      if (bounds[i].half_width == 0) continue;
      float Y[kSh];
      harmonics(direction(i).first, Y);
      for (int c = 0; c < 3; ++c) {
        float sum = 0.5f;
        for (int k = 0; k < kSh; ++k) sum += Y[k] * s.sh[(i * kSh + k) * 3 + c];
        footprints[i].color[c] = std::max(sum, 0.0f);
      }
    }
  }

  void bin() {
    pairs.clear();
    for (int64_t i = 0; i < s.n; ++i) {
      const Bound& b = bounds[i];
      if (b.half_width == 0) continue;
      const Footprint& f = footprints[i];
      const auto tile = [](float pixel, int count) { return std::clamp(int(std::floor(pixel / kTile)), 0, count - 1); };
      const int x0 = tile(f.x - b.half_width, columns), x1 = tile(f.x + b.half_width, columns);
      const int y0 = tile(f.y - b.half_height, rows), y1 = tile(f.y + b.half_height, rows);
      uint32_t depth;  // positive floats are ordered as their bits are
      std::memcpy(&depth, &b.depth, sizeof depth);
      for (int y = y0; y <= y1; ++y)
        for (int x = x0; x <= x1; ++x) pairs.push_back({uint64_t(y * columns + x) << 32 | depth, int32_t(i)});
    }
    std::sort(pairs.begin(), pairs.end());
    offsets.assign(size_t(columns) * rows + 1, 0);
    for (const auto& pair : pairs) ++offsets[(pair.first >> 32) + 1];
    for (size_t t = 1; t < offsets.size(); ++t) offsets[t] += offsets[t - 1];
  }

  // radiance [H,W,3] on black, transmittance [H,W]
  void blend(float* radiance, float* transmittance) {
    last.assign(size_t(view.width) * view.height, 0);
    evaluations = contributions = 0;
    for_pixels([&](int64_t pixel, float px, float py, int64_t begin, int64_t end) {
      float T = 1, color[3] = {0, 0, 0};
      int64_t k = begin;
      for (; k < end && T > kTransmittanceMin; ++k) {
        const Footprint& f = footprints[pairs[k].second];
        const float dx = px - f.x, dy = py - f.y;
        const float q = f.xx * dx * dx + 2 * f.xy * dx * dy + f.yy * dy * dy;
        if (q > f.level) continue;
        const float alpha = std::min(f.peak * std::exp(-0.5f * q), kAlphaMax), w = T * alpha;
        for (int c = 0; c < 3; ++c) color[c] += w * f.color[c];
        T *= 1 - alpha;
        ++contributions;
      }
      evaluations += k - begin;
      last[pixel] = k;
      for (int c = 0; c < 3; ++c) radiance[3 * pixel + c] = color[c];
      transmittance[pixel] = T;
    });
  }

  void blend_backward(const float* transmittance, const float* grad_radiance) {
    gradients.assign(s.n, {});
    for_pixels([&](int64_t pixel, float px, float py, int64_t begin, int64_t) {
      const float* g = grad_radiance + 3 * pixel;
      float T = transmittance[pixel], behind = 0;  // behind: ⟨g, light that comes from behind the splat⟩
      for (int64_t k = last[pixel] - 1; k >= begin; --k) {
        const int32_t id = pairs[k].second;
        const Footprint& f = footprints[id];
        const float dx = px - f.x, dy = py - f.y;
        const float q = f.xx * dx * dx + 2 * f.xy * dx * dy + f.yy * dy * dy;
        if (q > f.level) continue;
        const float G = std::exp(-0.5f * q), a = f.peak * G, alpha = std::min(a, kAlphaMax);
        T /= 1 - alpha;
        const float w = T * alpha;
        FootprintGradient& out = gradients[id];
        float along = 0;
        for (int c = 0; c < 3; ++c) {
          out.color[c] += w * g[c];
          along += f.color[c] * g[c];
        }
        const float ga = a <= kAlphaMax ? T * along - behind / (1 - alpha) : 0;
        behind += w * along;
        const float gq = -0.5f * a * ga;
        out.peak += G * ga;
        out.x -= 2 * gq * (f.xx * dx + f.xy * dy);
        out.y -= 2 * gq * (f.xy * dx + f.yy * dy);
        out.xx += gq * dx * dx;
        out.xy += 2 * gq * dx * dy;
        out.yy += gq * dy * dy;
      }
    });
  }

  // means [N,3] and sh [N,16,3]: written
  void shade_backward(float* grad_means, float* grad_sh) const {
    for (int64_t i = 0; i < s.n; ++i) {
      float* gm = grad_means + 3 * i;
      float* gs = grad_sh + i * kSh * 3;
      std::fill(gm, gm + 3, 0.0f);
      std::fill(gs, gs + kSh * 3, 0.0f);
      if (bounds[i].half_width == 0) continue;
      const auto [d, distance] = direction(i);
      float Y[kSh], along[kSh] = {};
      harmonics(d, Y);
      for (int c = 0; c < 3; ++c) {
        if (!(footprints[i].color[c] > 0)) continue;
        const float g = gradients[i].color[c];
        for (int k = 0; k < kSh; ++k) {
          gs[3 * k + c] = Y[k] * g;
          along[k] += s.sh[(i * kSh + k) * 3 + c] * g;
        }
      }
      const Vec3 gd = harmonics_gradient(d, along), gp = (1 / distance) * (gd - dot(gd, d) * d);
      gm[0] = gp.x, gm[1] = gp.y, gm[2] = gp.z;
    }
  }

  // means [N,3]: added to; quats [N,4], scales [N,3], opacities [N]: written
  void project_backward(float* grad_means, float* grad_quats, float* grad_scales, float* grad_opacities) const {
    for (int64_t i = 0; i < s.n; ++i) {
      float *gq = grad_quats + 4 * i, *gs = grad_scales + 3 * i;
      std::fill(gq, gq + 4, 0.0f);
      std::fill(gs, gs + 3, 0.0f);
      grad_opacities[i] = 0;
      if (bounds[i].half_width == 0) continue;
      const Footprint& f = footprints[i];
      const FootprintGradient& in = gradients[i];
      const Geometry g = geometry(i);
      grad_opacities[i] = in.peak;

      // conic = S⁻¹: gS = -K G K, G symmetric
      const float h = 0.5f * in.xy;
      const float a = f.xx * in.xx + f.xy * h, b = f.xx * h + f.xy * in.yy;
      const float c = f.xy * in.xx + f.yy * h, d = f.xy * h + f.yy * in.yy;
      const float Sxx = -(a * f.xx + b * f.xy), Sxy = -(a * f.xy + b * f.yy), Syy = -(c * f.xy + d * f.yy);
      // S = B Bᵀ + eps2d I, B0 = fx/z (M0 - u M2), B1 = fy/z (M1 - v M2)
      const Vec3 gB0 = 2 * (Sxx * g.B0 + Sxy * g.B1), gB1 = 2 * (Sxy * g.B0 + Syy * g.B1);
      const float z = g.p.z, jx = view.fx / z, jy = view.fy / z;
      const Mat3 gM = {{jx * gB0, jy * gB1, (-jx * g.u) * gB0 - (jy * g.v) * gB1}};
      const float gu = g.inside_x ? -jx * dot(gB0, g.M.r[2]) : 0, gv = g.inside_y ? -jy * dot(gB1, g.M.r[2]) : 0;
      const float gxn = view.fx * in.x + gu, gyn = view.fy * in.y + gv;  // to p_x/z and p_y/z
      const Vec3 gp = {gxn / z, gyn / z,
                       -(dot(gB0, g.B0) + dot(gB1, g.B1)) / z - (gxn * g.p.x + gyn * g.p.y) / (z * z)};
      const Vec3 gm = transposed_times(view.W, gp);
      grad_means[3 * i] += gm.x, grad_means[3 * i + 1] += gm.y, grad_means[3 * i + 2] += gm.z;

      // M = W R diag(s)
      const Mat3 gA = transpose(view.W) * gM;
      const float* scale = s.scales + 3 * i;
      Mat3 r;  // gradient to R
      for (int k = 0; k < 3; ++k) {
        const Vec3 row = gA.r[k], R = g.R.r[k];
        gs[0] += row.x * R.x, gs[1] += row.y * R.y, gs[2] += row.z * R.z;
        r.r[k] = {row.x * scale[0], row.y * scale[1], row.z * scale[2]};
      }
      const Quat q = g.unit;
      const Vec3 *r0 = &r.r[0], *r1 = &r.r[1], *r2 = &r.r[2];
      const Quat u = {2 * (q.x * (r2->y - r1->z) + q.y * (r0->z - r2->x) + q.z * (r1->x - r0->y)),
                      2 * (q.w * (r2->y - r1->z) + q.y * (r1->x + r0->y) + q.z * (r0->z + r2->x)) - 4 * q.x * (r1->y + r2->z),
                      2 * (q.w * (r0->z - r2->x) + q.x * (r1->x + r0->y) + q.z * (r2->y + r1->z)) - 4 * q.y * (r0->x + r2->z),
                      2 * (q.w * (r1->x - r0->y) + q.x * (r0->z + r2->x) + q.y * (r2->y + r1->z)) - 4 * q.z * (r0->x + r1->y)};
      const float along = u.w * q.w + u.x * q.x + u.y * q.y + u.z * q.z;  // the norm of the quaternion has no effect
      gq[0] = (u.w - along * q.w) / g.norm, gq[1] = (u.x - along * q.x) / g.norm;
      gq[2] = (u.y - along * q.y) / g.norm, gq[3] = (u.z - along * q.z) / g.norm;
    }
  }

  int64_t pair_count() const { return int64_t(pairs.size()); }
  int64_t evaluations = 0, contributions = 0;  // (splat, pixel) pairs looked at, and those above the cut-off

 private:
  Geometry geometry(int64_t i) const {
    Geometry g;
    const float *m = s.means + 3 * i, *q = s.quats + 4 * i, *scale = s.scales + 3 * i;
    g.norm = std::sqrt(q[0] * q[0] + q[1] * q[1] + q[2] * q[2] + q[3] * q[3]);
    g.unit = {q[0] / g.norm, q[1] / g.norm, q[2] / g.norm, q[3] / g.norm};
    g.R = rotation(g.unit);
    Mat3 A;
    for (int k = 0; k < 3; ++k) A.r[k] = {g.R.r[k].x * scale[0], g.R.r[k].y * scale[1], g.R.r[k].z * scale[2]};
    g.M = view.W * A;
    g.p = view.W * Vec3{m[0], m[1], m[2]} + view.t;
    const float bx = kBorder * view.width, by = kBorder * view.height, xn = g.p.x / g.p.z, yn = g.p.y / g.p.z;
    g.u = std::clamp(xn, -(view.cx + bx) / view.fx, (view.width - view.cx + bx) / view.fx);
    g.v = std::clamp(yn, -(view.cy + by) / view.fy, (view.height - view.cy + by) / view.fy);
    g.inside_x = g.u == xn;
    g.inside_y = g.v == yn;
    g.B0 = (view.fx / g.p.z) * (g.M.r[0] - g.u * g.M.r[2]);
    g.B1 = (view.fy / g.p.z) * (g.M.r[1] - g.v * g.M.r[2]);
    return g;
  }

  // from the camera to the splat, and how far
  std::pair<Vec3, float> direction(int64_t i) const {
    const float* m = s.means + 3 * i;
    const Vec3 v = Vec3{m[0], m[1], m[2]} + transposed_times(view.W, view.t);
    const float distance = std::sqrt(dot(v, v));
    return {(1 / distance) * v, distance};
  }

  template <class F>
  void for_pixels(const F& body) const {
    for (int t = 0; t < columns * rows; ++t) {
      const int x0 = t % columns * kTile, y0 = t / columns * kTile;
      for (int y = y0; y < std::min(y0 + kTile, view.height); ++y)
        for (int x = x0; x < std::min(x0 + kTile, view.width); ++x)
          body(int64_t(y) * view.width + x, x + 0.5f, y + 0.5f, offsets[t], offsets[t + 1]);
    }
  }

  Scene s;
  View view;
  int columns, rows;
  std::vector<Footprint> footprints;
  std::vector<FootprintGradient> gradients;
  std::vector<Bound> bounds;
  std::vector<std::pair<uint64_t, int32_t>> pairs;  // (tile, depth), splat
  std::vector<int64_t> offsets, last;
};

}  // namespace

extern "C" {

// viewmat [4,4]; camera = fx, fy, cx, cy, near, eps2d. The scene's arrays must outlive the rasterizer.
void* scalar_new(int64_t n, const float* means, const float* quats, const float* scales, const float* opacities,
                 const float* sh, const float* viewmat, const float* camera, int width, int height) {
  const float* v = viewmat;
  const View view = {{{{v[0], v[1], v[2]}, {v[4], v[5], v[6]}, {v[8], v[9], v[10]}}},
                     {v[3], v[7], v[11]},
                     camera[0], camera[1], camera[2], camera[3], camera[4], camera[5],
                     width, height};
  return new Rasterizer({n, means, quats, scales, opacities, sh}, view);
}
void scalar_free(void* r) { delete static_cast<Rasterizer*>(r); }

void scalar_project(void* r) { static_cast<Rasterizer*>(r)->project(); }
void scalar_shade(void* r) { static_cast<Rasterizer*>(r)->shade(); }
void scalar_bin(void* r) { static_cast<Rasterizer*>(r)->bin(); }
void scalar_blend(void* r, float* radiance, float* transmittance) {
  static_cast<Rasterizer*>(r)->blend(radiance, transmittance);
}
void scalar_blend_backward(void* r, const float* transmittance, const float* grad_radiance) {
  static_cast<Rasterizer*>(r)->blend_backward(transmittance, grad_radiance);
}
void scalar_shade_backward(void* r, float* grad_means, float* grad_sh) {
  static_cast<Rasterizer*>(r)->shade_backward(grad_means, grad_sh);
}
void scalar_project_backward(void* r, float* grad_means, float* grad_quats, float* grad_scales, float* grad_opacities) {
  static_cast<Rasterizer*>(r)->project_backward(grad_means, grad_quats, grad_scales, grad_opacities);
}
// counts [3]: pairs, evaluations, contributions
void scalar_counts(void* r, int64_t* counts) {
  const auto* raster = static_cast<Rasterizer*>(r);
  counts[0] = raster->pair_count(), counts[1] = raster->evaluations, counts[2] = raster->contributions;
}
}
