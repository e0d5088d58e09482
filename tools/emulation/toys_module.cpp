// The toys as a Python module: numpy arrays in, errors out as exceptions.
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include <string>
#include <tuple>

#include "simt.h"
#include "toys.h"

namespace py = pybind11;

static void check(const py::array& a, const char* name, char type) {
  const bool contiguous = a.flags() & py::array::c_style;
  if (a.dtype().char_() != py::dtype(std::string(1, type)).char_() || !contiguous)
    throw py::type_error(
        std::string(name) + ": expected a contiguous array of '" + type + "', got '" + a.dtype().char_() + "'");
}

using Extent = std::tuple<unsigned, unsigned, unsigned>;

static void run(const std::string& name, const py::array& in, py::array out, Extent grid, Extent block) {
  for (int i = 0; i < toys::kToyCount; ++i) {
    const toys::Toy& toy = toys::kToys[i];
    if (name != toy.name) continue;
    check(in, "in", toy.in_type);
    check(out, "out", toy.out_type);
    const auto [gx, gy, gz] = grid;
    const auto [bx, by, bz] = block;
    const toys::Sizes sizes{{gx, gy, gz}, {bx, by, bz}};
    const auto status = toy.run(in.data(), out.mutable_data(), int64_t(in.size()), sizes);
    if (status.failed()) throw std::runtime_error(name + ": " + status.what);
    return;
  }
  throw py::key_error(name);
}

static void raise_if(const char* wrong) {
  if (wrong) throw py::value_error(wrong);
}

PYBIND11_MODULE(MODULE, m) {
  m.def("run", &run, py::arg("name"), py::arg("in"), py::arg("out"), py::arg("grid"), py::arg("block"));
  m.def("set_order", [](const std::string& order) { raise_if(simt_set_order(order.c_str())); });
  m.def("set_threads", [](int count) { raise_if(simt_set_threads(count)); });
  m.def("launches", &simt_launches);
}
