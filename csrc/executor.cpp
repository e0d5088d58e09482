// The host side of a call of CUDA kernels. The current stream comes from torch's C functions, which are looked up
// when first needed: the plain one of torch 2.13 and newer, or the shim of 2.10 to 2.12, so that one binary serves all
// and loads beside a torch without CUDA, which has neither.
#include "executor.h"

#if defined(SPLATRENDER_WITH_CUDA) || defined(SPLATRENDER_EMULATED)

#ifndef SPLATRENDER_EMULATED
#include <torch/csrc/stable/accelerator.h>

#include "torch_symbol.h"
#endif

namespace splatrender {

#ifdef SPLATRENDER_EMULATED

static void* enter_device(const Tensor&, void*&) { return nullptr; }
static void leave_device(void*) {}

#else

static void* current_stream(int32_t device) {
  using ShimFn = int32_t (*)(int32_t, void**);          // torch 2.10 to 2.12
  using StreamFn = int32_t (*)(int32_t, StreamHandle*);  // torch 2.13 and newer: stream, then its native handle
  using NativeFn = int32_t (*)(StreamHandle, void**);
  using DeleteFn = int32_t (*)(StreamHandle);
  static const auto native = reinterpret_cast<NativeFn>(torch_symbol("torch_stream_native_handle"));
  static const auto current = reinterpret_cast<StreamFn>(torch_symbol("aoti_torch_get_current_stream"));
  static const auto drop = reinterpret_cast<DeleteFn>(torch_symbol("aoti_torch_delete_stream"));
  static const auto shim = reinterpret_cast<ShimFn>(torch_symbol("aoti_torch_get_current_cuda_stream"));
  void* found = nullptr;
  if (native && current && drop) {
    StreamHandle stream = nullptr;
    if (current(device, &stream) == 0) {
      const bool good = native(stream, &found) == 0;
      drop(stream);
      if (good) return found;
    }
  }
  if (shim && shim(device, &found) == 0) return found;
  throw std::runtime_error("splatrender: torch does not report its current CUDA stream (device " +
                           std::to_string(device) + "); torch >= 2.10 with CUDA is needed");
}

static void* enter_device(const Tensor& like, void*& stream) {
  const int32_t device = like.get_device_index();
  auto* guard = new torch::stable::accelerator::DeviceGuard(device);
  try {
    stream = current_stream(device);
  } catch (...) {
    delete guard;
    throw;
  }
  return guard;
}
static void leave_device(void* guard) { delete static_cast<torch::stable::accelerator::DeviceGuard*>(guard); }

#endif

CudaCall::CudaCall(const char* op, const Tensor& like) : op_(op), like_(like) {
  guard_ = enter_device(like, context_.stream);
  context_.owner = this;
  context_.allocate = &CudaCall::allocate;
}
CudaCall::~CudaCall() { leave_device(guard_); }

void* CudaCall::allocate(void* self, int64_t bytes) {
  auto& call = *static_cast<CudaCall*>(self);
  call.scratch_.push_back(make(call.like_, {bytes}, ScalarType::Byte));
  return call.scratch_.back().mutable_data_ptr();
}

void CudaCall::require(const cuda::Status& status) const {
  if (!status.failed()) return;
  if (status.code == kCudaOutOfMemory)
    throw std::runtime_error(std::string("CUDA out of memory. ") + op_ + ": " + status.kernel + ": " + status.what);
  throw std::runtime_error(std::string(op_) + ": " + status.kernel + ": CUDA error " + std::to_string(status.code) +
                           " (" + status.what + ")");
}

}  // namespace splatrender

#endif
