// A function's static array has the function's name in its own: the array `tile` of _Z6kernelPf is _ZZ6kernelPfE4tile,
// and the tag that __shared__ gives it comes after that.
#include "symbols.h"

#include <dlfcn.h>
#include <elf.h>
#include <link.h>

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <fstream>
#include <iterator>
#include <mutex>
#include <set>
#include <unordered_map>

#include "simt.h"

// Known objects whose addresses reveal where the library and its thread-local block begin.
extern "C" {
__attribute__((visibility("hidden"))) char simt_anchor = 1;
__attribute__((visibility("hidden"))) thread_local char simt_thread_anchor = 1;
}

namespace simt {
namespace {

#ifdef SIMT_PLAIN_SHARED
constexpr unsigned kKind = STT_OBJECT;
#else
constexpr unsigned kKind = STT_TLS;
#endif
constexpr char kTag[] = "B11simt_shared";

class Symbols {
 public:
  Symbols() {
    std::string file;
    std::ifstream stream("/proc/self/exe", std::ios::binary);
    Dl_info info{};
    if (dladdr(&simt_anchor, &info) && info.dli_fname && std::ifstream(info.dli_fname).good())
      stream = std::ifstream(info.dli_fname, std::ios::binary);
    file.assign(std::istreambuf_iterator<char>(stream), {});
    if (file.size() < sizeof(ElfW(Ehdr)) || std::memcmp(file.data(), ELFMAG, SELFMAG) != 0) return;
    read(file.data());
    if (!anchor_ || (kKind == STT_TLS && !has_thread_anchor_)) return;
    error.clear();
  }
  std::string error = "the library has no symbol table (stripped?), so its shared arrays cannot be found";

  std::vector<SharedArray> of(const void* kernel) {
    const std::lock_guard<std::mutex> hold(mutex_);
    std::set<std::string> mine;
    for (const std::string& name : names_of(kernel)) {
      // _Z6kernelPf names its arrays _ZZ6kernelPfE...
      const std::string prefix = "_ZZ" + (name.rfind("_Z", 0) == 0 ? name.substr(2) : name) + "E";
      mine.insert(prefix);
      launched_.insert(prefix);
    }
    std::vector<SharedArray> found;
    for (const Array& a : arrays_) {
      const auto inside = [&](const std::string& prefix) { return a.name.compare(0, prefix.size(), prefix) == 0; };
      if (std::any_of(mine.begin(), mine.end(), inside) || std::none_of(launched_.begin(), launched_.end(), inside))
        found.push_back(a.array);
    }
    return found;
  }
  std::vector<std::string> names_of(const void* kernel) const {
    const auto [begin, end] = functions_.equal_range(reinterpret_cast<uintptr_t>(kernel) - base());
    std::vector<std::string> names;
    for (auto f = begin; f != end; ++f) names.push_back(f->second);
    return names;
  }
  char* block() const {
    return kKind == STT_TLS ? &simt_thread_anchor - thread_anchor_ : reinterpret_cast<char*>(base());
  }

 private:
  struct Array {
    std::string name;
    SharedArray array;
  };
  uintptr_t base() const { return reinterpret_cast<uintptr_t>(&simt_anchor) - anchor_; }

  void read(const char* file) {
    const auto* header = reinterpret_cast<const ElfW(Ehdr)*>(file);
    const auto* sections = reinterpret_cast<const ElfW(Shdr)*>(file + header->e_shoff);
    for (int s = 0; s < header->e_shnum; ++s) {
      if (sections[s].sh_type != SHT_SYMTAB) continue;
      const char* names = file + sections[sections[s].sh_link].sh_offset;
      const auto* first = reinterpret_cast<const ElfW(Sym)*>(file + sections[s].sh_offset);
      for (const auto* y = first; y < first + sections[s].sh_size / sizeof *first; ++y) add(*y, names + y->st_name);
    }
  }
  void add(const ElfW(Sym) & symbol, const char* name) {
    const unsigned kind = symbol.st_info & 0xf;
    if (symbol.st_shndx == SHN_UNDEF) return;
    if (kind == STT_FUNC) functions_.emplace(symbol.st_value, name);
    if (std::strcmp(name, "simt_anchor") == 0) anchor_ = symbol.st_value;
    if (std::strcmp(name, "simt_thread_anchor") == 0) {
      thread_anchor_ = symbol.st_value;
      has_thread_anchor_ = true;
    }
    if (kind == kKind && std::strncmp(name, "_ZZ", 3) == 0 && std::strstr(name, kTag))
      arrays_.push_back({name, {size_t(symbol.st_value), size_t(symbol.st_size)}});
  }

  uintptr_t anchor_ = 0, thread_anchor_ = 0;
  bool has_thread_anchor_ = false;
  std::unordered_multimap<uintptr_t, std::string> functions_;
  std::vector<Array> arrays_;
  std::set<std::string> launched_;
  std::mutex mutex_;
};
Symbols& symbols() {
  static Symbols s;
  return s;
}

}  // namespace

std::vector<SharedArray> shared_arrays(const void* kernel) { return symbols().of(kernel); }
std::vector<std::string> names_of(const void* kernel) { return symbols().names_of(kernel); }
std::string symbols_error() { return symbols().error; }
void poison(const std::vector<SharedArray>& arrays) {
  char* const begin = arrays.empty() ? nullptr : symbols().block();
  for (const SharedArray& a : arrays) std::memset(begin + a.offset, 0xff, a.bytes);
}

}  // namespace simt
