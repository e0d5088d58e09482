// Stacks to switch between: one per thread of a block.
#pragma once
#include <cstddef>
#include <memory>

namespace simt {

// The fibers of one worker. Every fiber runs the same function, which must not return: it ends by leave or
// finish_and_enter. A fiber that is left in the middle is simply started again for the next block.
class FiberSet {
 public:
  FiberSet(int count, size_t stack_bytes, size_t guard_bytes, void (*body)());
  ~FiberSet();
  FiberSet(const FiberSet&) = delete;
  FiberSet& operator=(const FiberSet&) = delete;

  int count() const;
  void restart(int count);  // the first `count` fibers begin anew; called from the launching stack
  void enter(int fiber);    // from the launching stack or a fiber; returns when that is entered again
  void first_entry();       // what a fiber does first
  void finish_and_enter(int fiber);
  void leave(bool finished);  // to the launching stack

 private:
  struct State;
  std::unique_ptr<State> state_;
};

// ThreadSanitizer: what happened before a release of this address happened before what follows an acquire.
void release_order(void* address);
void acquire_order(void* address);

}  // namespace simt
