// The schema: every op is declared once, here, and registered per device. On torch's stable ABI, so that one binary
// serves every torch from 2.10 on; the Python module of the same file only makes `import splatrender._C` possible.
#include "ops.h"

#ifndef SPLATRENDER_NAMESPACE
#define SPLATRENDER_NAMESPACE splatrender
#endif

STABLE_TORCH_LIBRARY(SPLATRENDER_NAMESPACE, m) {
  m.def(
      "project(Tensor means, Tensor? quats, Tensor? scales, Tensor? factors, Tensor amplitudes, Tensor viewmats, "
      "Tensor intrinsics, int width, int height, float near, float far, float eps2d, bool antialiased, int response) "
      "-> (Tensor means2d, Tensor conics, Tensor depths, Tensor peaks, Tensor extents)");
  m.def(
      "project_backward(Tensor means, Tensor? quats, Tensor? scales, Tensor? factors, Tensor amplitudes, "
      "Tensor viewmats, Tensor intrinsics, Tensor extents, Tensor grad_means2d, Tensor grad_conics, "
      "Tensor grad_depths, Tensor grad_peaks, int width, int height, float near, float far, float eps2d, "
      "bool antialiased, int response) -> (Tensor means, Tensor quats, Tensor scales, Tensor factors, "
      "Tensor amplitudes, Tensor viewmats, Tensor intrinsics)");
  m.def("thresholds() -> (float cutoff, float alpha_max, float transmittance_min, int tile)");
  m.def("shade(Tensor means, Tensor sh, Tensor viewmats, Tensor extents, int degree) -> Tensor");
  m.def(
      "shade_backward(Tensor means, Tensor sh, Tensor viewmats, Tensor extents, Tensor emission, "
      "Tensor grad_emission, int degree) -> (Tensor means, Tensor sh, Tensor viewmats)");
  m.def(
      "bin(Tensor means2d, Tensor conics, Tensor depths, Tensor peaks, Tensor extents, int width, int height) -> "
      "(Tensor tile_offsets, Tensor splat_ids, Tensor slots, Tensor splat_offsets)");
  m.def(
      "blend(Tensor means2d, Tensor conics, Tensor peaks, Tensor emission, Tensor backgrounds, Tensor tile_offsets, "
      "Tensor splat_ids, Tensor slots, Tensor splat_offsets, int width, int height, int response, "
      "bool with_visibility, Tensor? means2d_abs) -> (Tensor radiance, Tensor transmittance, Tensor visibility, "
      "Tensor hits, Tensor last)");
  m.def(
      "blend_backward(Tensor means2d, Tensor conics, Tensor peaks, Tensor emission, Tensor backgrounds, "
      "Tensor tile_offsets, Tensor splat_ids, Tensor slots, Tensor splat_offsets, Tensor transmittance, "
      "Tensor hits, Tensor last, Tensor grad_radiance, Tensor grad_transmittance, int width, int height, "
      "int response, bool with_absgrad) -> (Tensor means2d, Tensor conics, Tensor peaks, Tensor emission, "
      "Tensor absgrad)");
  m.def(
      "flow_statistics(Tensor means2d, Tensor conics, Tensor peaks, Tensor emission, Tensor backgrounds, "
      "Tensor tile_offsets, Tensor splat_ids, Tensor slots, Tensor splat_offsets, Tensor photos, Tensor? masks, "
      "Tensor levels, int probes, int width, int height, int response) -> "
      "(Tensor error, Tensor removal, Tensor insertion)");
  m.def(
      "photometric_loss(Tensor radiance, Tensor photo, Tensor? mask, float ssim_weight, bool with_grad) -> "
      "(Tensor loss, Tensor l1, Tensor ssim, Tensor grad)");
  m.def(
      "adam_step(Tensor(a!) param, Tensor grad, Tensor(b!) exp_avg, Tensor(c!) exp_avg_sq, Tensor(d!) steps, "
      "Tensor? rows, Tensor lr, float beta1, float beta2, float eps, int columns, bool advance) -> ()");
}

static void register_kernels(torch::stable::detail::StableLibrary& m) {
  m.impl("project", TORCH_BOX(&splatrender::project_op));
  m.impl("project_backward", TORCH_BOX(&splatrender::project_backward_op));
  m.impl("shade", TORCH_BOX(&splatrender::shade_op));
  m.impl("shade_backward", TORCH_BOX(&splatrender::shade_backward_op));
  m.impl("bin", TORCH_BOX(&splatrender::bin_op));
  m.impl("blend", TORCH_BOX(&splatrender::blend_op));
  m.impl("blend_backward", TORCH_BOX(&splatrender::blend_backward_op));
  m.impl("flow_statistics", TORCH_BOX(&splatrender::flow_statistics_op));
  m.impl("photometric_loss", TORCH_BOX(&splatrender::photometric_loss_op));
  m.impl("adam_step", TORCH_BOX(&splatrender::adam_step_op));
}

STABLE_TORCH_LIBRARY_IMPL(SPLATRENDER_NAMESPACE, CPU, m) { register_kernels(m); }
// An op without tensors has no device.
STABLE_TORCH_LIBRARY_IMPL(SPLATRENDER_NAMESPACE, CompositeExplicitAutograd, m) {
  m.impl("thresholds", TORCH_BOX(&splatrender::thresholds_op));
}
#ifdef SPLATRENDER_WITH_CUDA
STABLE_TORCH_LIBRARY_IMPL(SPLATRENDER_NAMESPACE, CUDA, m) { register_kernels(m); }
#endif

#ifndef SPLATRENDER_EMULATED
#include <Python.h>

static PyModuleDef module = {PyModuleDef_HEAD_INIT, "_C", nullptr, -1, nullptr, nullptr, nullptr, nullptr, nullptr};
PyMODINIT_FUNC PyInit__C() { return PyModule_Create(&module); }
#endif
