// A kernel in the symbol table of this very library: its name and its __shared__ arrays.
#pragma once
#include <cstddef>
#include <string>
#include <vector>

namespace simt {

struct SharedArray {
  size_t offset;  // from the beginning of the library's thread-local block, or of the library
  size_t bytes;
};
// The arrays that a block of this kernel can use: those declared in it, and those declared in functions that have
// never been launched, since it may call them.
std::vector<SharedArray> shared_arrays(const void* kernel);
// The mangled names of the function at this address.
std::vector<std::string> names_of(const void* kernel);
// The reason why there is no table, or empty.
std::string symbols_error();
// Every byte becomes 0xff, which is NaN as a float and as a double, in the calling thread's copy.
void poison(const std::vector<SharedArray>&);

}  // namespace simt
