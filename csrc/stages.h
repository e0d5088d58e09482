// The stages of rendering: one plain argument struct each, filled by the host side (project.cpp, shade.cpp, ...)
// and read by the executors (cpu/). No torch here. Every pointer carries its shape; rows are contiguous.
//
//   N splats, C cameras, D channels, K spherical-harmonic coefficients, P splat-tile pairs, H x W pixels,
//   tiles = ceil(W/16) * ceil(H/16) per camera; T is float or double.
#pragma once
#include <cstdint>

#include "math/thresholds.h"

namespace splatrender {

template <class T>
struct ProjectArgs {
  int64_t N, C;
  const T* means;       // [N,3]
  const T* quats;       // [N,4] wxyz, or null with factors
  const T* scales;      // [N,3], or null with factors
  const T* factors;     // [N,3,3], or null with quats and scales
  const T* amplitudes;  // [N] opacity or extinction
  const T* viewmats;    // [C,4,4]
  const T* intrinsics;  // [C,4] fx, fy, cx, cy
  int width, height;
  double near_plane, far_plane, eps2d;
  bool antialiased;
  int response;
  // forward: written; backward: extents is read
  T* means2d;  // [C,N,2]
  T* conics;   // [C,N,3]
  T* depths;   // [C,N]
  T* peaks;    // [C,N]
  T* extents;  // [C,N,2] half-widths of the bounding rectangle [px], 0 where culled
};
template <class T>
struct ProjectGrads {
  const T *means2d, *conics, *depths, *peaks;                                      // gradients that come in
  T *means, *quats, *scales, *factors, *amplitudes, *viewmats, *intrinsics;        // gradients that go out
  double* partial;  // [chunks, C, 16] sums of a chunk of splats for W (9), t (3), intrinsics (4)
};
constexpr int64_t kProjectChunk = 1024;  // splats a partial sum covers: fixed, so sums never depend on threads
constexpr int64_t project_chunks(int64_t N) { return (N + kProjectChunk - 1) / kProjectChunk; }

template <class T>
struct ShadeArgs {
  int64_t N, C;
  int K, degree;
  const T* means;     // [N,3]
  const T* sh;        // [N,K,3]
  const T* viewmats;  // [C,4,4]
  const T* extents;   // [C,N,2]
  T* emission;        // [C,N,3]; backward reads it to know what was clipped at 0
};
template <class T>
struct ShadeGrads {
  const T* emission;               // [C,N,3] coming in
  T *means, *sh, *viewmats;        // going out
  double* partial;                 // [chunks, C, 16] as in ProjectGrads
};

template <class T>
struct BinArgs {
  int64_t N, C;
  int width, height;
  const T* means2d;  // [C,N,2]
  const T* conics;   // [C,N,3]
  const T* depths;   // [C,N]
  const T* peaks;    // [C,N]
  const T* extents;  // [C,N,2]
  int32_t* tile_offsets;   // [C*tiles+1]
  int32_t* splat_offsets;  // [C*N+1]
  int32_t* splat_ids;      // [P] c*N+n, by tile, then depth, then n
  int32_t* slots;          // [P] where the pair stands when pairs are ordered by splat
};

template <class T>
struct BlendArgs {
  int64_t N, C, D, P;
  int width, height;
  int response;
  const T* means2d;            // [C,N,2]
  const T* conics;             // [C,N,3]
  const T* peaks;              // [C,N]
  const T* emission;           // [C,N,D]
  const T* backgrounds;        // [C,D]
  const int32_t* tile_offsets;   // [C*tiles+1]
  const int32_t* splat_ids;      // [P]
  const int32_t* slots;          // [P]
  const int32_t* splat_offsets;  // [C*N+1]
  T* radiance;       // [C,H,W,D]
  T* transmittance;  // [C,H,W]
  T* visibility;     // [C,N] or null
  int32_t* last;     // [C,H,W] how many entries of its tile's list a pixel went through until it was full
  int16_t* hits;     // [P] which of the 16 blocks of 4x4 pixels of its tile a splat changed
};
template <class T>
struct BlendGrads {
  const T* radiance;       // [C,H,W,D] coming in
  const T* transmittance;  // [C,H,W]
  T *means2d, *conics, *peaks, *emission;  // going out
  T* absgrad;  // [C,N,2] Σ over pixels of the absolute value of what each adds to means2d, or null
};
constexpr int kAbsgradChannels = 4;  // at most with absgrad: absolute values of several passes do not add up

// The last `probes` of the N rows are probes: candidates without mass, which change no pixel.
template <class T>
struct FlowArgs {
  BlendArgs<T> list;   // what goes in; peaks of probes are those of the largest mass
  int64_t probes;
  int masses;                  // K
  const T* levels;             // [K] peaks of a probe at the masses, as parts of the largest
  const T* photos;             // [C,H,W,3], or null with photo_bytes
  const uint8_t* photo_bytes;  // [C,H,W,3], or null with photos
  const uint8_t* masks;        // [C,H,W] 0 = leave out, or null
  T* error;      // [C] 1/2 sum |radiance - photo|²
  T* removal;    // [C,N-probes] change of it when a splat is removed
  T* insertion;  // [C,probes,K,5] when a probe is inserted: the change, its slopes (3) and curvature in the colour
  double* partial;  // [C*tiles] the error of a tile
};
constexpr int kMassesMost = 8;

template <class T>
struct LossArgs {
  int width, height, strips;
  double ssim_weight;
  const T* radiance;           // [H,W,3]
  const T* photo;              // [H,W,3], or null with photo_bytes
  const uint8_t* photo_bytes;  // [H,W,3], or null with photo
  const uint8_t* mask;         // [H,W] 0 = leave out, or null
  T *loss, *l1, *ssim;         // one number each
  T* grad;                     // [H,W,3] of the loss, or null
  double* partial;             // [strips,H,2] sums of a row for l1 and 1 - ssim
};
constexpr int kLossStrip = 512;  // columns that are swept at once at most: fixed, so sums never depend on threads

struct AdamArgs {
  int64_t N, row;         // numbers in a row
  int columns;            // the first so many of each row are moved
  double beta1, beta2, eps;
  bool advance;           // write the step counts back
  float* param;           // [N,row]
  const float* grad;      // [N,row]
  float* exp_avg;         // [N,row] running mean of the gradient
  float* exp_avg_sq;      // [N,row] and of its square
  int32_t* steps;         // [N] steps done so far
  const uint8_t* rows;    // [N] 0 = leave the row alone, or null
  const float* lr;        // [columns]
};

}  // namespace splatrender
