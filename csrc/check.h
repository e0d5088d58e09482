// Checks of the arguments of a stage: device, dtype, shape. A dimension is a number or a letter; the first tensor that
// carries a letter fixes it. Every message has the form "op: NAME: expected X, got Y".
#pragma once
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>

#include <cstdint>
#include <cstring>
#include <initializer_list>
#include <map>
#include <optional>
#include <sstream>
#include <stdexcept>
#include <string>
#include <vector>

#include "allocation.h"
#include "math/thresholds.h"
#ifdef SPLATRENDER_WITH_CUDA
#include "cuda/prims.h"
#endif

namespace splatrender {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;

// A dimension of an expected shape: a number or a symbol such as "N".
struct Dim {
  Dim(int64_t n) : number(n) {}
  Dim(int n) : number(n) {}
  Dim(const char* s) : symbol(s) {}
  int64_t number = -1;
  std::string symbol;
};

inline std::string shape_text(const Tensor& t) {
  std::ostringstream s;
  s << "[";
  for (int64_t i = 0; i < t.dim(); ++i) s << (i ? ", " : "") << t.size(i);
  s << "]";
  return s.str();
}

inline const char* dtype_text(ScalarType t) {
  switch (t) {
    case ScalarType::Float: return "float32";
    case ScalarType::Double: return "float64";
    case ScalarType::Int: return "int32";
    case ScalarType::Long: return "int64";
    case ScalarType::Short: return "int16";
    case ScalarType::Byte: return "uint8";
    case ScalarType::Bool: return "bool";
    case ScalarType::Half: return "float16";
    case ScalarType::BFloat16: return "bfloat16";
    default: return "another dtype";
  }
}

inline std::string device_text(const Tensor& t) {
  if (t.is_cpu()) return "cpu";
  return (t.is_cuda() ? "cuda:" : "another device, index ") + std::to_string(t.get_device_index());
}

// Collects the symbols of one call.
class Checker {
 public:
  explicit Checker(const char* op) : op_(op) {}

  // Returns the tensor itself when it is contiguous, else a contiguous copy.
  Tensor operator()(const Tensor& t, const char* name, ScalarType dtype, std::initializer_list<Dim> shape) {
    if (t.scalar_type() != dtype) fail(name, dtype_text(dtype), dtype_text(t.scalar_type()));
    bool good = t.dim() == int64_t(shape.size());
    int64_t i = 0;
    for (const Dim& d : shape) {
      if (!good) break;
      if (d.symbol.empty()) {
        good = t.size(i) == d.number;
      } else {
        const auto [at, fresh] = symbols_.try_emplace(d.symbol, t.size(i));
        good = fresh || at->second == t.size(i);
      }
      ++i;
    }
    if (!good) fail(name, "shape " + expected(shape), "shape " + shape_text(t));
    on_device(t, name);
    return t.is_contiguous() ? t : torch::stable::contiguous(t);
  }
  // The first tensor determines the device of all of them.
  void on_device(const Tensor& t, const char* name) {
    const std::string device = device_text(t);
    if (device_.empty()) {
      if (!t.is_cpu() && !t.is_cuda()) fail(name, "a tensor on the CPU or a CUDA device", "a tensor on " + device);
      device_ = device;
    }
    if (device != device_) fail(name, "a tensor on " + device_, "a tensor on " + device);
  }
  int64_t size(const char* symbol) const { return symbols_.at(symbol); }
  void require(bool ok, const char* name, const std::string& want, const std::string& found) const {
    if (!ok) fail(name, want, found);
  }
  [[noreturn]] void fail(const char* name, const std::string& want, const std::string& found) const {
    throw std::runtime_error(op_ + ": " + name + ": expected " + want + ", got " + found);
  }

 private:
  std::string expected(std::initializer_list<Dim> shape) const {
    std::ostringstream s;
    s << "[";
    const char* comma = "";
    for (const Dim& d : shape) {
      s << comma;
      comma = ", ";
      const auto at = symbols_.find(d.symbol);
      if (d.symbol.empty())
        s << d.number;
      else if (at != symbols_.end())
        s << d.symbol << "=" << at->second;
      else
        s << d.symbol;
    }
    s << "]";
    return s.str();
  }
  std::string op_, device_;
  std::map<std::string, int64_t> symbols_;
};

// The float type of a call: that of its first tensor, float32 or float64.
inline ScalarType float_type(const Tensor& t, const char* op, const char* name) {
  const ScalarType s = t.scalar_type();
  if (s != ScalarType::Float && s != ScalarType::Double)
    throw std::runtime_error(std::string(op) + ": " + name + ": expected float32 or float64, got " + dtype_text(s));
  return s;
}

inline int64_t bytes_of(ScalarType t) {
  switch (t) {
    case ScalarType::Double: return 8;
    case ScalarType::Float:
    case ScalarType::Int: return 4;
    case ScalarType::Short: return 2;
    default: return 1;
  }
}
// An uninitialised tensor on the device of `like`. The emulator fills it with NaN: values that no kernel writes show.
inline Tensor make(const Tensor& like, std::vector<int64_t> shape, ScalarType dtype) {
  try {
    Tensor made = torch::stable::new_empty(like, shape, dtype);
#ifdef SPLATRENDER_EMULATED
    std::memset(made.mutable_data_ptr(), 0xff, size_t(made.numel() * bytes_of(dtype)));
#endif
    return made;
  } catch (const std::exception& error) {
    if (!like.is_cuda()) throw;
    int64_t bytes = bytes_of(dtype);
    for (int64_t n : shape) bytes *= n;
    cuda::Status fault;
#ifdef SPLATRENDER_WITH_CUDA
    fault = cuda::sticky_error();
#endif
    throw std::runtime_error(allocation_failure(bytes, device_text(like), error.what(), fault));
  }
}
template <class T>
T* data(const Tensor& t) {
  return static_cast<T*>(t.mutable_data_ptr());
}
template <class T>
const T* cdata(const Tensor& t) {
  return static_cast<const T*>(t.const_data_ptr());
}

// f(float{}) or f(double{})
template <class F>
auto by_type(ScalarType t, const F& f) {
  return t == ScalarType::Float ? f(float{}) : f(double{});
}

inline void check_image(const Checker& check, int64_t width, int64_t height) {
  check.require(width >= 1 && width <= 65535, "width", "1 to 65535", std::to_string(width));
  check.require(height >= 1 && height <= 65535, "height", "1 to 65535", std::to_string(height));
}
inline void check_response(const Checker& check, int64_t response) {
  check.require(response == 0 || response == 1, "response", "0 (gaussian) or 1 (beer_lambert)",
                std::to_string(response));
}
// Rows of splats and tiles are numbered in 32 bits.
constexpr int64_t kMostRows = (int64_t(1) << 31) - 1;
inline void check_rows(const Checker& check, const char* name, int64_t cameras, int64_t splats) {
  check.require(splats == 0 || cameras <= kMostRows / splats, name, "fewer than 2^31 splats times cameras",
                std::to_string(splats) + " splats in " + std::to_string(cameras) + " cameras");
}
// The same for the first axes of [C,N,...], before anything is copied.
inline void check_rows(const Checker& check, const char* name, const Tensor& rows) {
  if (rows.dim() >= 2) check_rows(check, name, rows.size(0), rows.size(1));
}
inline int64_t tile_count(int64_t width, int64_t height) {
  return ((width + kTile - 1) / kTile) * ((height + kTile - 1) / kTile);
}

}  // namespace splatrender
