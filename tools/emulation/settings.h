// In which order threads and blocks get their turn, how many threads of the operating system share the blocks, and what
// the GPU is that is emulated.
#pragma once
#include <cstdint>
#include <string>

namespace simt {

enum class Order { forward, reverse, random };

struct Settings {
  Order order = Order::forward;
  uint64_t seed = 0;
  int threads = 1;
  int multiprocessors = 132;
  std::string wrong;  // what is wrong with the environment, or empty

  // From SIMT_ORDER, SIMT_THREADS and SIMT_MULTIPROCESSORS.
  Settings();
  // What is wrong with the value, or empty.
  std::string set_order(const std::string& text);
  std::string set_threads(int count);
  std::string set_multiprocessors(int count);
};
Settings& settings();

// xorshift64*: one stream per block, so that an order does not depend on which worker has the block.
class Random {
 public:
  explicit Random(uint64_t seed) : state_((seed + 1) * 0x9E3779B97F4A7C15ull | 1) {}
  unsigned below(unsigned n) {
    state_ ^= state_ >> 12, state_ ^= state_ << 25, state_ ^= state_ >> 27;
    return unsigned((state_ * 0x2545F4914F6CDD1Dull >> 33) % n);
  }

 private:
  uint64_t state_;
};

}  // namespace simt
