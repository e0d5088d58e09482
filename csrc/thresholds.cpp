// The thresholds as an op, for Python.
#include "math/thresholds.h"

#include "ops.h"

namespace splatrender {

std::tuple<double, double, double, int64_t> thresholds_op() { return {kCutoff, kAlphaMax, kTransmittanceMin, kTile}; }

}  // namespace splatrender
