#pragma once
#include <gtest/gtest.h>

#include <cstdint>
#include <random>
#include <string>

namespace mezzotint::test {

/// A generator seeded by the running test's full name: the same numbers every time, different ones for every test.
inline std::mt19937_64 test_rng() {
  const auto* info = testing::UnitTest::GetInstance()->current_test_info();
  const std::string name = info ? std::string(info->test_suite_name()) + "." + info->name() : "none";
  uint64_t hash = 1469598103934665603ull;
  for (const char c : name) hash = (hash ^ static_cast<unsigned char>(c)) * 1099511628211ull;
  return std::mt19937_64(hash);
}

}  // namespace mezzotint::test
