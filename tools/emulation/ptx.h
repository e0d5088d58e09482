// What the C++ that ptx_to_cpp.py writes is made of: registers read and written under another type, memory accesses
// with their checks, and the instructions that are no single C++ operator.
#pragma once
#include <cfenv>
#include <cmath>
#include <limits>

#include "simt.h"

namespace ptx {

// The value of a register seen as T: the same bits, or the lowest of them.
template <class T, class R>
inline T as(R value) {
  if constexpr (std::is_same_v<T, R>) {
    return value;
  } else if constexpr (std::is_same_v<T, bool> || std::is_same_v<R, bool>) {
    return T(value);
  } else if constexpr (sizeof(T) == sizeof(R)) {
    return __builtin_bit_cast(T, value);
  } else {
    static_assert(std::is_integral_v<T> && std::is_integral_v<R>);
    return T(value);
  }
}
// Into a register: the same bits, extended by the value's sign where the register is wider.
template <class R, class T>
inline void put(R& target, T value) {
  if constexpr (std::is_integral_v<T> && std::is_integral_v<R>)
    target = R(value);
  else
    target = as<R>(value);
}

// ---- memory ----------------------------------------------------------------------------------------------------

// The shared memory of one kernel, addressed by offsets.
struct Shared {
  char* memory;
  uint32_t bytes;
};
inline char* aligned(char* address, unsigned bytes) {
  if (reinterpret_cast<uintptr_t>(address) % bytes != 0)
    simt::fail("misaligned address %p of %u bytes", static_cast<void*>(address), bytes);
  return address;
}
inline char* at(Shared s, uint32_t address, unsigned bytes) {
  if (address > s.bytes || s.bytes - address < bytes)
    simt::fail("shared memory overrun: %u bytes at %u of %u", bytes, address, s.bytes);
  return aligned(s.memory + address, bytes);
}
inline char* at(uint64_t address, unsigned bytes) { return aligned(reinterpret_cast<char*>(address), bytes); }
// Parameters are read by parts and copied whole; the compiler chose their places.
template <class T>
inline T load(const void* address) {
  T value;
  __builtin_memcpy(&value, address, sizeof(T));
  return value;
}
// One machine access, which is what ThreadSanitizer checks.
template <class T>
inline T fetch(const char* address) {
  return *reinterpret_cast<const T*>(address);
}
template <class T>
inline void store(char* address, T value) {
  *reinterpret_cast<T*>(address) = value;
}
template <class T>
inline T* pointer(char* address) {
  return reinterpret_cast<T*>(address);
}

// ---- floating point --------------------------------------------------------------------------------------------

// Subnormal numbers become zero, with their sign.
inline float ftz(float x) { return std::fabs(x) < std::numeric_limits<float>::min() ? std::copysign(0.f, x) : x; }
template <class T>
inline T saturate(T x) {
  return x > T(0) ? (x < T(1) ? x : T(1)) : T(0);
}
// The number where the other is NaN; -0 < +0.
template <class T>
inline T smaller(T a, T b) {
  if (std::is_floating_point_v<T> && a == b) return std::signbit(double(a)) ? a : b;
  return a < b || b != b ? a : b;
}
template <class T>
inline T larger(T a, T b) {
  if (std::is_floating_point_v<T> && a == b) return std::signbit(double(a)) ? b : a;
  return a > b || b != b ? a : b;
}
// An operation in another rounding mode; the operands pass through `volatile`, so that it is not moved or folded.
template <class T, class F>
__attribute__((noinline)) T rounded(int mode, const F& f) {
  const int before = std::fegetround();
  std::fesetround(mode);
  const volatile T result = f();
  std::fesetround(before);
  return result;
}
template <class T>
inline T opaque(T x) {
  volatile T y = x;
  return y;
}
// To an integer, saturating; NaN becomes 0.
template <class To, class From>
inline To to_integer(From x) {
  using Limits = std::numeric_limits<To>;
  if (x != x) return 0;
  if (x <= From(Limits::min())) return Limits::min();
  if (x >= From(Limits::max())) return Limits::max();
  return To(x);
}

// ---- integers --------------------------------------------------------------------------------------------------

template <class T>
inline T shift_left(T x, uint32_t by) {
  return by >= 8 * sizeof(T) ? T(0) : T(x << by);
}
template <class T>
inline T shift_right(T x, uint32_t by) {
  return by >= 8 * sizeof(T) ? (x < T(0) ? T(-1) : T(0)) : T(x >> by);
}
template <class T>
inline T quotient(T a, T b) {
  if (b == 0) simt::fail("integer division by zero");
  if (std::is_signed_v<T> && b == T(-1)) return T(0 - std::make_unsigned_t<T>(a));
  return T(a / b);
}
template <class T>
inline T remainder(T a, T b) {
  if (b == 0) simt::fail("integer division by zero");
  if (std::is_signed_v<T> && b == T(-1)) return 0;
  return T(a % b);
}
template <class T>
inline T multiply_high(T a, T b) {
  if constexpr (sizeof(T) == 8) {
    using Wide = std::conditional_t<std::is_signed_v<T>, __int128, unsigned __int128>;
    return T((Wide(a) * Wide(b)) >> 64);
  } else {
    using Wide = std::conditional_t<std::is_signed_v<T>, int64_t, uint64_t>;
    return T((Wide(a) * Wide(b)) >> (8 * sizeof(T)));
  }
}
// a + b + carry, and the new carry.
template <class T>
inline T add_carry(T a, T b, bool carry_in, bool& carry_out) {
  T sum, total;
  const bool first = __builtin_add_overflow(a, b, &sum);
  carry_out = __builtin_add_overflow(sum, T(carry_in), &total) || first;
  return total;
}
template <class T>
inline T subtract_borrow(T a, T b, bool borrow_in, bool& borrow_out) {
  T difference, total;
  const bool first = __builtin_sub_overflow(a, b, &difference);
  borrow_out = __builtin_sub_overflow(difference, T(borrow_in), &total) || first;
  return total;
}

template <class T>
inline uint32_t leading_zeros(T x) {
  return x == 0 ? 8 * sizeof(T) : sizeof(T) == 8 ? unsigned(__builtin_clzll(x)) : unsigned(__builtin_clz(uint32_t(x)));
}
// The place of the highest bit that is not the sign's, or how far it is from the top; all ones when there is none.
template <class T>
inline uint32_t find_bit(T x, bool as_shift) {
  using U = std::make_unsigned_t<T>;
  const U bits = x < T(0) ? U(~x) : U(x);
  if (bits == 0) return 0xffffffffu;
  return as_shift ? leading_zeros(bits) : uint32_t(8 * sizeof(T) - 1 - leading_zeros(bits));
}
template <class T>
inline T reverse_bits(T x) {
  T reversed = 0;
  for (unsigned i = 0; i < 8 * sizeof(T); ++i) reversed |= T(T(x >> i & 1) << (8 * sizeof(T) - 1 - i));
  return reversed;
}
template <class T>
inline T extract_bits(T x, uint32_t at, uint32_t count) {
  constexpr uint32_t kBits = 8 * sizeof(T);
  using U = std::make_unsigned_t<T>;
  at &= 0xff, count &= 0xff;
  if (count == 0) return 0;
  const uint32_t sign_at = at + count - 1 < kBits ? at + count - 1 : kBits - 1;
  const bool negative = std::is_signed_v<T> && (U(x) >> sign_at & 1);
  U bits = at >= kBits ? U(0) : U(U(x) >> at);
  const uint32_t have = at >= kBits ? 0 : kBits - at < count ? kBits - at : count;
  if (have < kBits) bits &= U((U(1) << have) - 1);
  if (negative && have < kBits) bits |= U(~U(0) << have);
  return T(bits);
}
template <class T>
inline T insert_bits(T from, T into, uint32_t at, uint32_t count) {
  constexpr uint32_t kBits = 8 * sizeof(T);
  at &= 0xff, count &= 0xff;
  if (at >= kBits || count == 0) return into;
  const T mask = T((count >= kBits ? ~T(0) : T((T(1) << count) - 1)) << at);
  return T((into & ~mask) | (T(from << at) & mask));
}
inline uint32_t permute_bytes(uint32_t a, uint32_t b, uint32_t selector) {
  const uint64_t both = uint64_t(b) << 32 | a;
  uint32_t result = 0;
  for (int i = 0; i < 4; ++i) {
    const uint32_t choice = selector >> (4 * i) & 0xf;
    uint32_t byte = uint32_t(both >> (8 * (choice & 7))) & 0xff;
    if (choice & 8) byte = byte & 0x80 ? 0xff : 0;
    result |= byte << (8 * i);
  }
  return result;
}
inline uint32_t funnel(bool left, bool wrap, uint32_t low, uint32_t high, uint32_t by) {
  by = wrap ? by & 31 : by > 32 ? 32 : by;
  const uint64_t both = uint64_t(high) << 32 | low;
  return left ? uint32_t((by == 32 ? both << 32 : both << by) >> 32) : uint32_t(both >> by);
}
template <int kTable, class T>
inline T logic(T a, T b, T c) {
  T result = 0;
  for (int i = 0; i < 8; ++i)
    if (kTable >> i & 1) result |= T((i & 4 ? a : T(~a)) & (i & 2 ? b : T(~b)) & (i & 1 ? c : T(~c)));
  return result;
}

// ---- between lanes ---------------------------------------------------------------------------------------------

inline uint32_t shuffle(char mode, uint32_t value, uint32_t b, uint32_t c, uint32_t mask, bool& valid,
                        simt::Site site) {
  const int lane = simt::position->lane, step = int(b & 31), segment = int(c >> 8 & 31), clamp = int(c & 31);
  const int last = (lane & segment) | (clamp & ~segment);
  int source = mode == 'u'   ? lane - step
               : mode == 'd' ? lane + step
               : mode == 'b' ? lane ^ step
                             : (lane & segment) | (step & ~segment);
  valid = mode == 'u' ? source >= last : source <= last;
  if (!valid) source = lane;
  return uint32_t(simt::warp_exchange(simt::Exchange::shuffle, mask, value, source, site));
}
inline uint32_t lanes_where(bool predicate, uint32_t mask, simt::Site site) {
  return uint32_t(simt::warp_exchange(simt::Exchange::ballot, mask, predicate, 0, site));
}
inline int barrier(uint32_t number, bool predicate, simt::Site site) {
  if (number != 0) simt::fail("barrier %u: only 0 is emulated", number);
  return simt::block_barrier(predicate, site);
}

// One of these per translated kernel registers its name.
struct Translation {
  Translation(const char* name, simt::TranslatedBody body) { simt::add_translation(name, body); }
};

}  // namespace ptx
