#include "settings.h"

#include <cstdlib>

#include "simt.h"

namespace simt {

Settings::Settings() {
  if (const char* text = std::getenv("SIMT_ORDER")) {
    const std::string error = set_order(text);
    if (!error.empty()) wrong = "SIMT_ORDER: " + error;
  }
  if (const char* text = std::getenv("SIMT_THREADS")) {
    const std::string error = set_threads(std::atoi(text));
    if (!error.empty()) wrong = "SIMT_THREADS: " + error;
  }
  if (const char* text = std::getenv("SIMT_MULTIPROCESSORS")) {
    const std::string error = set_multiprocessors(std::atoi(text));
    if (!error.empty()) wrong = "SIMT_MULTIPROCESSORS: " + error;
  }
}

std::string Settings::set_order(const std::string& text) {
  const std::string random = "random:";
  const bool is_random = text.rfind(random, 0) == 0 && text.size() > random.size() &&
                         text.find_first_not_of("0123456789", random.size()) == std::string::npos;
  if (text != "forward" && text != "reverse" && !is_random)
    return "expected forward, reverse or random:SEED, got '" + text + "'";
  if (is_random) seed = std::strtoull(text.c_str() + random.size(), nullptr, 10);
  order = is_random ? Order::random : text == "forward" ? Order::forward : Order::reverse;
  return {};
}

std::string Settings::set_threads(int count) {
#ifdef SIMT_PLAIN_SHARED
  if (count != 1)
    return "expected 1 in this build, whose shared memory exists once, got '" + std::to_string(count) + "'";
#endif
  if (count < 1 || count > 64) return "expected 1 to 64, got '" + std::to_string(count) + "'";
  threads = count;
  return {};
}

std::string Settings::set_multiprocessors(int count) {
  if (count < 1 || count > 1024) return "expected 1 to 1024, got '" + std::to_string(count) + "'";
  multiprocessors = count;
  return {};
}

Settings& settings() {
  static Settings s;
  return s;
}

int multiprocessors() { return settings().multiprocessors; }

namespace {
const char* kept(const std::string& error) {
  static thread_local std::string message;
  message = error;
  return message.empty() ? nullptr : message.c_str();
}
}  // namespace

}  // namespace simt

extern "C" {
const char* simt_set_order(const char* order) { return simt::kept(simt::settings().set_order(order)); }
const char* simt_set_threads(int count) { return simt::kept(simt::settings().set_threads(count)); }
const char* simt_set_multiprocessors(int count) { return simt::kept(simt::settings().set_multiprocessors(count)); }
}
