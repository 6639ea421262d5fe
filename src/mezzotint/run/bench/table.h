#pragma once
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <vector>

#include "mezzotint/run/bench/machine.h"
#include "mezzotint/run/bench/timing.h"

namespace mezzotint::run::bench {

/// One way to compute: torch's in a dtype, or ours in a format.
struct Row {
  std::string name;
  uint64_t bytes = 0;                  ///< of the weights
  double error = 0;                    ///< ||y - y32|| / ||y32||
  std::optional<double> weight_error;  ///< ||decoded - W|| / ||W||
  std::string path;                    ///< "torch", or the kernels
  bool dequantized = false;            ///< no kernel read the codes
  std::string problem;                 ///< why there is no time: a shape that is refused, or a wrong answer
  bool wrong = false;
  Timing timing;
  Timing base;  ///< of bf16 in the same rounds, where not all rows of a table took turns with it
};

/// What was measured on one layer or block.
struct Table {
  std::string model, what;
  std::vector<std::pair<std::string, int64_t>> sizes;  ///< {"m", 256}, ...
  double operations = 0;                               ///< of one run
  std::vector<Row> rows;
  const Row* find(const std::string& name) const;
  /// Over bf16, whose row every table has and which is never refused.
  double speedup(const Row& row) const;
};

void print(const Machine& machine);
void print(const Table& table);
nlohmann::ordered_json to_json(const Machine& machine);
nlohmann::ordered_json to_json(const Table& table);

/// Whether a product beside the same with the decoded weight is as near as its rounding of inputs allows, which is of
/// the kind of the weight's. A scale that is off by a quarter never is.
bool is_near(double difference, double weight_error);

}  // namespace mezzotint::run::bench
