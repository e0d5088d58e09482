// The table of one instruction set.
#include "stage_table.h"

#define SR_CONCAT2(a, b) a##b
#define SR_CONCAT(a, b) SR_CONCAT2(a, b)
#define SR_STRING2(a) #a
#define SR_STRING(a) SR_STRING2(a)

namespace splatrender {
Kernels SR_CONCAT(make_kernels_, SPLATRENDER_ISA)() {
  Kernels k{};
  k.isa = SR_STRING(SPLATRENDER_ISA);
  SPLATRENDER_ISA::fill_project(k.f32), SPLATRENDER_ISA::fill_project(k.f64);
  SPLATRENDER_ISA::fill_shade(k.f32), SPLATRENDER_ISA::fill_shade(k.f64);
  SPLATRENDER_ISA::fill_bin(k.f32), SPLATRENDER_ISA::fill_bin(k.f64);
  SPLATRENDER_ISA::fill_blend(k.f32), SPLATRENDER_ISA::fill_blend(k.f64);
  SPLATRENDER_ISA::fill_flow_statistics(k.f32), SPLATRENDER_ISA::fill_flow_statistics(k.f64);
  SPLATRENDER_ISA::fill_loss(k.f32), SPLATRENDER_ISA::fill_loss(k.f64);
  SPLATRENDER_ISA::fill_adam(k);
  return k;
}
}  // namespace splatrender
