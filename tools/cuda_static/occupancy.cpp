// Blocks that fit one multiprocessor, by NVIDIA's own calculator. Each line of the standard input is
//   architecture (such as 90), threads per block, registers per thread, shared memory per block [bytes]
// and is answered by a line: blocks per multiprocessor, largest number of threads per multiprocessor, and what limits
// (bits: 1 warps, 2 registers, 4 shared memory, 8 blocks).
#include <cuda_occupancy.h>
#include <cuda_runtime.h>

#include <climits>
#include <cstdio>

namespace {

struct Architecture {
  int number, threads;               // per multiprocessor
  size_t shared, shared_opt_in;      // [bytes] per multiprocessor, and at most for one block
  size_t reserved;                   // [bytes] the system takes of every block's shared memory
};
// CUDA C++ Programming Guide, "Compute Capabilities", technical specifications
constexpr Architecture kArchitectures[] = {
    {75, 1024, 64 << 10, 64 << 10, 0},      {80, 2048, 164 << 10, 163 << 10, 1024},
    {86, 1536, 100 << 10, 99 << 10, 1024},  {89, 1536, 100 << 10, 99 << 10, 1024},
    {90, 2048, 228 << 10, 227 << 10, 1024},
};

}  // namespace

int main() {
  int number, threads, registers, shared;
  while (std::scanf("%d %d %d %d", &number, &threads, &registers, &shared) == 4) {
    const Architecture* found = nullptr;
    for (const Architecture& a : kArchitectures)
      if (a.number == number) found = &a;
    if (!found) {
      std::fprintf(stderr, "architecture: expected 75, 80, 86, 89 or 90, found %d\n", number);
      return 2;
    }
    cudaOccDeviceProp device{};
    device.computeMajor = number / 10;
    device.computeMinor = number % 10;
    device.maxThreadsPerBlock = 1024;
    device.maxThreadsPerMultiprocessor = found->threads;
    device.regsPerBlock = device.regsPerMultiprocessor = 65536;
    device.warpSize = 32;
    device.sharedMemPerBlock = 48 << 10;
    device.sharedMemPerMultiprocessor = found->shared;
    device.sharedMemPerBlockOptin = found->shared_opt_in;
    device.reservedSharedMemPerBlock = found->reserved;
    device.numSms = 1;
    cudaOccFuncAttributes kernel{};
    kernel.maxThreadsPerBlock = 1024;
    kernel.numRegs = registers;
    kernel.sharedSizeBytes = size_t(shared);
    kernel.maxDynamicSharedSizeBytes = INT_MAX;
    kernel.numBlockBarriers = 1;
    cudaOccDeviceState state{};
    cudaOccResult result{};
    const cudaOccError error = cudaOccMaxActiveBlocksPerMultiprocessor(&result, &device, &kernel, &state, threads, 0);
    if (error != CUDA_OCC_SUCCESS) {
      std::fprintf(stderr, "cuda_occupancy.h: error %d for %d %d %d %d\n", int(error), number, threads, registers,
                   shared);
      return 1;
    }
    std::printf("%d %d %u\n", result.activeBlocksPerMultiprocessor, found->threads, result.limitingFactors);
  }
}
