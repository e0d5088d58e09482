// The thresholds of rendering, once for every executor. Python reads them through the op `splatrender::thresholds`.
#pragma once

namespace splatrender {

// A splat is left out at a pixel where its response is below one grey level of 8-bit output.
constexpr double kCutoff = 1.0 / 255.0;
// Largest opacity of a single splat, which keeps 1/(1-α) bounded.
constexpr double kAlphaMax = 0.99;
// A pixel is finished once its transmittance is at most this: what follows cannot show in 8-bit output.
constexpr double kTransmittanceMin = 1e-4;
// Pixels along the side of a tile.
constexpr int kTile = 16;

}  // namespace splatrender
