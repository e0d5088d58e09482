// The host side of every stage, as registered in ops.cpp.
#pragma once
#include <optional>
#include <tuple>

#include "check.h"

namespace splatrender {

using OptionalTensor = std::optional<Tensor>;

std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor> project_op(
    Tensor means, OptionalTensor quats, OptionalTensor scales, OptionalTensor factors, Tensor amplitudes,
    Tensor viewmats, Tensor intrinsics, int64_t width, int64_t height, double near_plane, double far_plane,
    double eps2d, bool antialiased, int64_t response);
std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor> project_backward_op(
    Tensor means, OptionalTensor quats, OptionalTensor scales, OptionalTensor factors, Tensor amplitudes,
    Tensor viewmats, Tensor intrinsics, Tensor extents, Tensor grad_means2d, Tensor grad_conics, Tensor grad_depths,
    Tensor grad_peaks, int64_t width, int64_t height, double near_plane, double far_plane, double eps2d,
    bool antialiased, int64_t response);

Tensor shade_op(Tensor means, Tensor sh, Tensor viewmats, Tensor extents, int64_t degree);
std::tuple<Tensor, Tensor, Tensor> shade_backward_op(Tensor means, Tensor sh, Tensor viewmats, Tensor extents,
                                                     Tensor emission, Tensor grad_emission, int64_t degree);

std::tuple<Tensor, Tensor, Tensor, Tensor> bin_op(Tensor means2d, Tensor conics, Tensor depths, Tensor peaks,
                                                  Tensor extents, int64_t width, int64_t height);

std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor> blend_op(
    Tensor means2d, Tensor conics, Tensor peaks, Tensor emission, Tensor backgrounds, Tensor tile_offsets,
    Tensor splat_ids, Tensor slots, Tensor splat_offsets, int64_t width, int64_t height, int64_t response,
    bool with_visibility, OptionalTensor means2d_abs);
std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor> blend_backward_op(
    Tensor means2d, Tensor conics, Tensor peaks, Tensor emission, Tensor backgrounds, Tensor tile_offsets,
    Tensor splat_ids, Tensor slots, Tensor splat_offsets, Tensor transmittance, Tensor hits, Tensor last,
    Tensor grad_radiance, Tensor grad_transmittance, int64_t width, int64_t height, int64_t response,
    bool with_absgrad);

std::tuple<Tensor, Tensor, Tensor> flow_statistics_op(
    Tensor means2d, Tensor conics, Tensor peaks, Tensor emission, Tensor backgrounds, Tensor tile_offsets,
    Tensor splat_ids, Tensor slots, Tensor splat_offsets, Tensor photos, OptionalTensor masks, Tensor levels,
    int64_t probes, int64_t width, int64_t height, int64_t response);

std::tuple<Tensor, Tensor, Tensor, Tensor> photometric_loss_op(Tensor radiance, Tensor photo, OptionalTensor mask,
                                                               double ssim_weight, bool with_grad);

// (cutoff, alpha_max, transmittance_min, tile) of math/thresholds.h.
std::tuple<double, double, double, int64_t> thresholds_op();

void adam_step_op(Tensor param, Tensor grad, Tensor exp_avg, Tensor exp_avg_sq, Tensor steps, OptionalTensor rows,
                  Tensor lr, double beta1, double beta2, double eps, int64_t columns, bool advance);

}  // namespace splatrender
