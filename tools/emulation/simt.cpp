// The runtime behind simt.h: fibers, barriers, warp exchanges, the order of threads, errors.
//
// A fiber runs until it must wait: at a barrier or a collective, or because it is done. Then the next one that can go
// on is chosen in the set order. When none can, the kernel hangs on a GPU, and the launch ends with a message: control
// goes back to the launching stack, and the other fibers are never entered again.
//
// This file is compiled without instrumentation in the sanitizer builds; it reports the switches of stacks to them,
// and ThreadSanitizer what is ordered: memory before a barrier or __syncwarp and after it. Shuffles and votes order
// nothing, as CUDA has it, and neither do blocks among each other.
#include "simt.h"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <deque>
#include <memory>
#include <mutex>
#include <numeric>
#include <string>
#include <thread>
#include <unordered_map>
#include <vector>

#include "fiber.h"
#include "settings.h"
#include "symbols.h"
#include "warp.h"

namespace simt {

thread_local const Position* position = nullptr;
thread_local const Place* place = nullptr;

namespace {

constexpr int kMaxThreads = 1024;
constexpr size_t kStackBytes = 256 * 1024, kGuardBytes = 4096;

bool same_call(const Site& a, const Site& b) {
  return a.line == b.line && std::strcmp(a.what, b.what) == 0 && std::strcmp(a.file, b.file) == 0;
}
std::string text_of(const Site& s) {
  const char* slash = std::strrchr(s.file, '/');
  return std::string(s.what) + " (" + (slash ? slash + 1 : s.file) + ":" + std::to_string(s.line) + ")";
}
std::string text_of(unsigned mask) {
  char text[16];
  std::snprintf(text, sizeof text, "0x%08x", mask);
  return text;
}

// Everything that one thread of the operating system needs to run blocks.
class Worker {
 public:
  void prepare(const Launch& launch, const std::vector<SharedArray>& shared);
  bool run_block(uint3 index, uint64_t number);  // false: see error
  std::string error;

  int barrier(bool predicate, Site site);
  uint64_t exchange(Exchange kind, unsigned mask, uint64_t value, int source, Site site);
  [[noreturn]] void stop(const std::string& message);
  void body();

 private:
  void wait();
  int next_fiber();
  int pick(unsigned lanes);
  void switch_to(int fiber);
  std::string stuck() const;

  std::unique_ptr<FiberSet> fibers_;
  std::vector<Position> positions_;
  std::vector<Warp> warps_;
  const Launch* launch_ = nullptr;
  TranslatedBody translated_ = nullptr;
  const std::vector<SharedArray>* shared_ = nullptr;
  Place place_{};
  Random random_{0};
  Order order_ = Order::forward;
  int threads_ = 0, live_ = 0, current_ = 0, waiting_ = 0, votes_ = 0, result_ = 0;
  unsigned round_ = 0;
  Site barrier_site_{};
  bool failed_ = false;
  // ThreadSanitizer's handles: two, used in turn, for the block's barrier and for each meeting of each warp. Every
  // block has its own, or it would be ordered after the one before it.
  std::unique_ptr<char[]> order_handles_;
};
thread_local Worker* worker = nullptr;

std::unordered_map<std::string, TranslatedBody>& translations() {
  static std::unordered_map<std::string, TranslatedBody> map;
  return map;
}
TranslatedBody translation_of(const void* kernel) {
  if (translations().empty()) return nullptr;
  for (const std::string& name : names_of(kernel))
    if (const auto found = translations().find(name); found != translations().end()) return found->second;
  return nullptr;
}

void Worker::prepare(const Launch& launch, const std::vector<SharedArray>& shared) {
  launch_ = &launch;
  shared_ = &shared;
  translated_ = translation_of(launch.kernel);
  place_.block_size = launch.block;
  place_.grid_size = launch.grid;
  order_ = settings().order;
  threads_ = int(launch.block.x * launch.block.y * launch.block.z);
  if (!fibers_ || fibers_->count() < threads_)
    fibers_ = std::make_unique<FiberSet>(threads_, kStackBytes, kGuardBytes, [] { worker->body(); });
  positions_.resize(size_t(threads_));
  for (unsigned i = 0; i < unsigned(threads_); ++i) {
    const unsigned x = i % launch.block.x, y = i / launch.block.x % launch.block.y;
    positions_[i] = {{x, y, i / (launch.block.x * launch.block.y)}, int(i % kWarp)};
  }
  warps_.resize(size_t(threads_ + kWarp - 1) / kWarp);
}

bool Worker::run_block(uint3 index, uint64_t number) {
  place_.block = index;
  random_ = Random(settings().seed + number * 7919);
  live_ = threads_;
  waiting_ = votes_ = 0;
  failed_ = false;
  for (size_t w = 0; w < warps_.size(); ++w) {
    const int lanes = std::min(kWarp, threads_ - int(w) * kWarp);
    warps_[w].live = warps_[w].runnable = lanes == kWarp ? ~0u : (1u << lanes) - 1;
    warps_[w].at_barrier = 0;
    for (Rendezvous& m : warps_[w].meeting) m.arrived = 0;
    warps_[w].open = 0;
  }
  order_handles_.reset(new char[2 + 2 * kWarp * warps_.size()]);
  poison(*shared_);
  fibers_->restart(threads_);
  place = &place_;
  current_ = order_ == Order::reverse ? threads_ - 1 : 0;
  switch_to(next_fiber());
  order_handles_.reset();
  place = nullptr;
  position = nullptr;
  return !failed_;
}

void Worker::switch_to(int fiber) {
  current_ = fiber;
  position = &positions_[size_t(fiber)];
  fibers_->enter(fiber);
}

// What a fiber does, from its first instruction to its last.
void Worker::body() {
  fibers_->first_entry();
  if (translated_)
    translated_(launch_->arguments);
  else
    launch_->body(launch_->call);
  Warp& warp = warps_[size_t(current_ / kWarp)];
  const unsigned bit = 1u << current_ % kWarp;
  warp.live &= ~bit;
  warp.runnable &= ~bit;
  --live_;
  if (waiting_ > 0) stop("thread exited before __syncthreads, while others wait at " + text_of(barrier_site_));
  if (live_ == 0) fibers_->leave(true);
  const int next = next_fiber();
  if (next < 0) stop(stuck());
  current_ = next;
  position = &positions_[size_t(next)];
  fibers_->finish_and_enter(next);
}

int Worker::pick(unsigned lanes) {
  if (order_ == Order::forward) return __builtin_ctz(lanes);
  if (order_ == Order::reverse) return kWarp - 1 - __builtin_clz(lanes);
  for (unsigned skip = random_.below(unsigned(__builtin_popcount(lanes))); skip > 0; --skip) lanes &= lanes - 1;
  return __builtin_ctz(lanes);
}

// The fiber that continues: of the same warp while one can, else of the next warp; -1 when all wait.
int Worker::next_fiber() {
  const int warps = int(warps_.size());
  const int begin = order_ == Order::random ? int(random_.below(unsigned(warps))) : current_ / kWarp;
  for (int i = 0; i < warps; ++i) {
    const int w = (order_ == Order::reverse ? begin + warps - i : begin + i) % warps;
    if (warps_[size_t(w)].runnable) return w * kWarp + pick(warps_[size_t(w)].runnable);
  }
  return -1;
}

void Worker::wait() {
  const int me = current_, next = next_fiber();
  if (next < 0) stop(stuck());
  if (next != me) switch_to(next);
}

// The reason why nothing can continue.
std::string Worker::stuck() const {
  std::string lanes;
  bool barrier = false, meeting = false;
  for (size_t w = 0; w < warps_.size() && lanes.size() < 600; ++w) {
    if (warps_[w].at_barrier) {
      barrier = true;
      lanes += "; warp " + std::to_string(w) + ": lanes " + text_of(warps_[w].at_barrier) + " wait at " +
               text_of(barrier_site_);
    }
    for (const Rendezvous& m : warps_[w].meeting) {
      if (!m.arrived) continue;
      meeting = true;
      lanes += "; warp " + std::to_string(w) + ": lanes " + text_of(m.arrived) + " wait at " + text_of(m.site) +
               " for mask " + text_of(m.mask);
    }
  }
  const char* kind = meeting && !barrier ? "divergent collective: " : "deadlock: ";
  return kind + (lanes.empty() ? "no thread can continue" : lanes.substr(2));
}

void Worker::stop(const std::string& message) {
  const uint3 b = place_.block, t = positions_[size_t(current_)].thread;
  char where[128];
  std::snprintf(where, sizeof where, " [block (%u, %u, %u), thread (%u, %u, %u)]", b.x, b.y, b.z, t.x, t.y, t.z);
  error = message + where;
  failed_ = true;
  fibers_->leave(false);
  std::abort();  // never reached: an abandoned fiber is not entered again
}

int Worker::barrier(bool predicate, Site site) {
  Warp& warp = warps_[size_t(current_ / kWarp)];
  const unsigned bit = 1u << current_ % kWarp;
  if (live_ != threads_) stop("thread exited before __syncthreads: " + text_of(site));
  if (waiting_ > 0 && !same_call(site, barrier_site_))
    stop("deadlock: threads of one block wait at " + text_of(barrier_site_) + " and at " + text_of(site));
  barrier_site_ = site;
  votes_ += predicate;
  char* const order = &order_handles_[round_ & 1];
  release_order(order);
  warp.runnable &= ~bit;
  warp.at_barrier |= bit;
  if (++waiting_ == threads_) {
    result_ = votes_;
    waiting_ = votes_ = 0;
    ++round_;
    for (Warp& w : warps_) {
      w.runnable = w.live;
      w.at_barrier = 0;
    }
  }
  wait();
  acquire_order(order);
  return result_;
}

uint64_t Worker::exchange(Exchange kind, unsigned mask, uint64_t value, int source, Site site) {
  const int lane = current_ % kWarp;
  Warp& warp = warps_[size_t(current_ / kWarp)];
  const unsigned bit = 1u << lane;
  if (!(mask & bit))
    stop("divergent collective: the calling lane is not in mask " + text_of(mask) + ", " + text_of(site));
  if (mask & ~warp.live)
    stop("divergent collective: mask " + text_of(mask) +
         " names lanes that have exited or do not exist (live: " + text_of(warp.live) + "), " + text_of(site));
  if (kind == Exchange::shuffle && !(mask >> (source & 31) & 1))
    stop("divergent collective: reads lane " + std::to_string(source) + " outside mask " + text_of(mask) + ", " +
         text_of(site));
  const int slot = warp.slot_of(mask);
  Rendezvous& meeting = warp.meeting[slot];
  if (meeting.arrived && (meeting.kind != kind || !same_call(meeting.site, site)))
    stop("divergent collective: lanes " + text_of(meeting.arrived) + " at " + text_of(meeting.site) + " and lanes " +
         text_of(bit) + " at " + text_of(site) + ", both with mask " + text_of(mask));
  meeting.mask = mask;
  meeting.kind = kind;
  meeting.site = site;
  meeting.arrived |= bit;
  warp.open |= 1u << slot;
  warp.value[lane] = value;
  warp.source[lane] = source;
  warp.runnable &= ~bit;
  char* const order = &order_handles_[size_t(2 * (current_ - lane + slot + 1)) + (meeting.round & 1)];
  if (kind == Exchange::none) release_order(order);
  if (meeting.arrived == mask) warp.complete(meeting);
  wait();
  if (kind == Exchange::none) acquire_order(order);
  return warp.result[lane];
}

// Workers keep their stacks between launches. ThreadSanitizer must not see this lock, which would order the blocks,
// nor one fiber run two blocks in a row: what a fiber does is in order.
class Pool {
 public:
  std::unique_ptr<Worker> take() {
    const Lock hold(locked_);
    if (free_.size() < kSpare) return std::make_unique<Worker>();
    std::unique_ptr<Worker> w = std::move(free_.front());
    free_.pop_front();
    return w;
  }
  void give(std::unique_ptr<Worker> w) {
    const Lock hold(locked_);
    free_.push_back(std::move(w));
  }

 private:
  struct Lock {
    explicit Lock(std::atomic_flag& f) : flag(f) {
      while (flag.test_and_set(std::memory_order_acquire)) std::this_thread::yield();
    }
    ~Lock() { flag.clear(std::memory_order_release); }
    std::atomic_flag& flag;
  };
  std::atomic_flag locked_ = ATOMIC_FLAG_INIT;
  std::deque<std::unique_ptr<Worker>> free_;
#ifdef SIMT_TSAN
  static constexpr size_t kSpare = 3;
#else
  static constexpr size_t kSpare = 1;
#endif
};
Pool& pool() {
  static Pool p;
  return p;
}
std::atomic<long> launches{0};

// The blocks of one launch, shared out among workers.
class Grid {
 public:
  explicit Grid(const Launch& launch) : launch_(launch), shared_(shared_arrays(launch.kernel)) {
    blocks_.resize(size_t(launch.grid.x) * launch.grid.y * launch.grid.z);
    std::iota(blocks_.begin(), blocks_.end(), uint64_t(0));
    if (settings().order == Order::reverse) std::reverse(blocks_.begin(), blocks_.end());
    if (settings().order == Order::random) {
      Random random(settings().seed);
      for (size_t i = blocks_.size(); i > 1; --i) std::swap(blocks_[i - 1], blocks_[random.below(unsigned(i))]);
    }
  }
  std::string run() {
    std::vector<std::thread> others;
#ifdef SIMT_TSAN
    // A thread of its own for every block, one after another: blocks then are not ordered for ThreadSanitizer, and
    // their shared memory is not the same memory.
    for (size_t done = 1; done <= blocks_.size(); ++done) {
      others.emplace_back([this] { work(1); });
      while (done_.load() != done) std::this_thread::sleep_for(std::chrono::microseconds(50));
    }
#else
    const size_t workers = std::min(size_t(settings().threads), blocks_.size());
    for (size_t i = 1; i < workers; ++i) others.emplace_back([this] { work(blocks_.size()); });
    work(blocks_.size());
#endif
    for (std::thread& t : others) t.join();
    return error_;
  }

 private:
  void work(size_t limit) {
    std::unique_ptr<Worker> mine = pool().take();
    Worker* const outer = worker;
    worker = mine.get();
    mine->prepare(launch_, shared_);
    for (size_t i = 0; i < limit; ++i) {
      const size_t at = next_.fetch_add(1);
      if (at >= blocks_.size() || failed_.load()) break;
      const uint64_t b = blocks_[at];
      const dim3 g = launch_.grid;
      const uint3 index{unsigned(b % g.x), unsigned(b / g.x % g.y), unsigned(b / (uint64_t(g.x) * g.y))};
      if (mine->run_block(index, b)) continue;
      if (!failed_.exchange(true)) error_ = mine->error;
    }
    worker = outer;
    pool().give(std::move(mine));
    ++done_;
  }

  const Launch& launch_;
  const std::vector<SharedArray> shared_;
  std::vector<uint64_t> blocks_;
  std::atomic<size_t> next_{0}, done_{0};
  std::atomic<bool> failed_{false};
  std::string error_;
};

std::string refused(const Launch& launch) {
  const dim3 g = launch.grid, b = launch.block;
  const auto size = [](dim3 d) {
    return "(" + std::to_string(d.x) + ", " + std::to_string(d.y) + ", " + std::to_string(d.z) + ")";
  };
  if (worker) return "launch inside a kernel";
  if (!settings().wrong.empty()) return settings().wrong;
  if (g.x == 0 || g.y == 0 || g.z == 0) return "empty grid " + size(g);
  if (g.x > 0x7fffffffu || g.y > 65535 || g.z > 65535) return "too many blocks " + size(g);
  const uint64_t threads = uint64_t(b.x) * b.y * b.z;
  if (threads == 0) return "empty block " + size(b);
  if (threads > kMaxThreads || b.z > 64) return "too many threads in a block " + size(b);
  if (!translations().empty() && !translation_of(launch.kernel)) return "no body translated from PTX";
  return symbols_error();
}

}  // namespace

int block_barrier(bool predicate, Site site) { return worker->barrier(predicate, site); }
uint64_t warp_exchange(Exchange kind, unsigned mask, uint64_t value, int source_lane, Site site) {
  return worker->exchange(kind, mask, value, source_lane, site);
}
void fail(const char* format, ...) {
  char text[512];
  va_list arguments;
  va_start(arguments, format);
  std::vsnprintf(text, sizeof text, format, arguments);
  va_end(arguments);
  worker->stop(text);
}
void add_translation(const char* name, TranslatedBody body) { translations()[name] = body; }

const char* run(const Launch& launch) {
  static thread_local std::string message;
  message = refused(launch);
  if (message.empty()) {
    ++launches;
#ifdef SIMT_PLAIN_SHARED
    static std::mutex one_launch;  // shared memory exists once
    const std::lock_guard<std::mutex> hold(one_launch);
#endif
    message = Grid(launch).run();
  }
  return message.empty() ? nullptr : message.c_str();
}

}  // namespace simt

extern "C" long simt_launches() { return simt::launches; }
