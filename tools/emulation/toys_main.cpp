// One toy under a sanitizer: `toys-tsan NAME`. Prints the kernel's sum, or the runtime's message.
#include <cstdio>
#include <cstring>
#include <string>
#include <vector>

#include "toys.h"

int main(int argc, char** argv) {
  constexpr unsigned kBlocks = 3, kTiles = 7, kThreads = 64;
  const std::vector<float> in(kTiles * kThreads, 0.5f);
  std::vector<float> out(1, 0.f);  // exactly as long as the kernel may write
  for (int i = 0; i < toys::kToyCount && argc == 2; ++i) {
    if (std::strcmp(argv[1], toys::kToys[i].name) != 0) continue;
    if (toys::kToys[i].in_type != 'f') break;
    const toys::Sizes sizes{{kBlocks, 1, 1}, {kThreads, 1, 1}};
    const auto status = toys::kToys[i].run(in.data(), out.data(), int64_t(in.size()), sizes);
    std::printf("%s\n", status.failed() ? status.what : std::to_string(out[0]).c_str());
    return status.failed() ? 2 : 0;
  }
  std::fprintf(stderr, "expected the name of a toy that adds floats up\n");
  return 3;
}
