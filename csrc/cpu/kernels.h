// The table of CPU loops: each is compiled once per instruction set, and the best set that this CPU has is
// chosen at first use (SPLATRENDER_ISA = portable | avx2 | avx512 overrides).
#pragma once
#include "../stages.h"
#include "parallel.h"

namespace splatrender {

struct BinScratch {
  Scratch spans, rows, keys, order, visible, places;
  int64_t runs_most = 0;
};

template <class T>
struct Stages {
  void (*project)(const ProjectArgs<T>&);
  void (*project_backward)(const ProjectArgs<T>&, const ProjectGrads<T>&);
  void (*shade)(const ShadeArgs<T>&);
  void (*shade_backward)(const ShadeArgs<T>&, const ShadeGrads<T>&);
  int64_t (*bin_count)(const BinArgs<T>&, BinScratch&);  // fills the offsets, returns P
  void (*bin_fill)(const BinArgs<T>&, BinScratch&);
  void (*blend)(const BlendArgs<T>&);
  void (*blend_backward)(const BlendArgs<T>&, const BlendGrads<T>&);
  void (*flow_statistics)(const FlowArgs<T>&);
  void (*loss)(const LossArgs<T>&);
};

struct Kernels {
  const char* isa;
  Stages<float> f32;
  Stages<double> f64;
  void (*adam)(const AdamArgs&);
  template <class T>
  const Stages<T>& stages() const {
    if constexpr (sizeof(T) == 4)
      return f32;
    else
      return f64;
  }
};

const Kernels& kernels();

}  // namespace splatrender
