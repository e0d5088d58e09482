// Dispatch of a stage to the CPU kernels, or to the CUDA kernels of the device that has its tensors, on torch's
// current stream there. SPLATRENDER_WITH_CUDA: the CUDA kernels are part of this build. SPLATRENDER_EMULATED: they are
// run by the emulator, on CPU tensors, and there are no CPU kernels.
#pragma once
#include "check.h"
#include "cpu/kernels.h"
#include "cuda/stages_cuda.h"

namespace splatrender {

// One call of CUDA kernels: makes the tensors' device the current one, and gives out scratch memory.
class CudaCall {
 public:
  CudaCall(const char* op, const Tensor& like);
  ~CudaCall();
  CudaCall(const CudaCall&) = delete;
  CudaCall& operator=(const CudaCall&) = delete;
  cuda::Context& context() { return context_; }
  void require(const cuda::Status& status) const;  // throws with op, kernel and CUDA's message

 private:
  static void* allocate(void* self, int64_t bytes);
  const char* op_;
  const Tensor& like_;
  std::vector<Tensor> scratch_;
  void* guard_ = nullptr;
  cuda::Context context_;
};

inline bool runs_on_cuda([[maybe_unused]] const Tensor& like) {
#if defined(SPLATRENDER_EMULATED)
  return true;
#elif defined(SPLATRENDER_WITH_CUDA)
  return like.is_cuda();
#else
  return false;
#endif
}

// Number of partial sums that the executor of a call leaves for each camera in a backward pass over N splats.
inline int64_t partial_sums(const Tensor& like, int64_t N) {
  return runs_on_cuda(like) ? cuda::camera_chunks(N) : project_chunks(N);
}

// Calls on_cuda(context), which returns a Status, or on_cpu(kernels). Both take their argument as `auto&`, so that a
// build compiles only what it has.
template <class Cuda, class Cpu>
void run([[maybe_unused]] const char* op, [[maybe_unused]] const Tensor& like, [[maybe_unused]] const Cuda& on_cuda,
         [[maybe_unused]] const Cpu& on_cpu) {
#if defined(SPLATRENDER_WITH_CUDA) || defined(SPLATRENDER_EMULATED)
  if (runs_on_cuda(like)) {
    CudaCall call(op, like);
    call.require(on_cuda(call.context()));
    return;
  }
#endif
#if !defined(SPLATRENDER_EMULATED)
  on_cpu(kernels());
#endif
}

}  // namespace splatrender
