// Entries that each loop file of one instruction set contributes to that set's table.
#pragma once
#include "../math/pack.h"
#include "kernels.h"

namespace splatrender {
inline namespace SPLATRENDER_ISA {
template <class T>
void fill_project(Stages<T>&);
template <class T>
void fill_shade(Stages<T>&);
template <class T>
void fill_bin(Stages<T>&);
template <class T>
void fill_blend(Stages<T>&);
template <class T>
void fill_flow_statistics(Stages<T>&);
template <class T>
void fill_loss(Stages<T>&);
void fill_adam(Kernels&);
}  // namespace SPLATRENDER_ISA
}  // namespace splatrender
