#pragma once
#include <optional>
#include <string>
#include <string_view>
#include <vector>

/// What PEFT stores beside the tensors: alphas and how they scale (room-internal).
namespace mezzotint::adapter {

class PeftConfig {
 public:
  /// An adapter_config.json, or diffusers' metadata entry lora_adapter_metadata, whose keys stand behind the name of a
  /// component ("transformer.lora_alpha"). Throws Error "bad-adapter-config".
  explicit PeftConfig(std::string_view json);

  struct Scaling {
    double alpha = 0;
    bool rank_stabilized = false;
  };
  /// For a target as the file names it: alpha_pattern first (its keys match ends of names), then lora_alpha.
  std::optional<Scaling> scaling(std::string_view target) const;
  const std::vector<std::string>& notes() const { return notes_; }

 private:
  struct Section {
    std::string prefix;  ///< of targets; "" = all
    std::optional<double> alpha;
    bool rank_stabilized = false;
    std::vector<std::pair<std::string, double>> patterns;
  };
  std::vector<Section> sections_;
  std::vector<std::string> notes_;
};

}  // namespace mezzotint::adapter
