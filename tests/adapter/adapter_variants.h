#pragma once
#include <cmath>
#include <cstdint>
#include <random>
#include <string>
#include <vector>

#include "adapter/adapter_file.h"
#include "support/closed_form.h"

/// Adapters of every algorithm for weights of any size, large enough to be seen beside the errors of 4-bit formats.
namespace mezzotint::test {

struct AdapterVariant {
  std::string algorithm;  ///< as Algorithm::name, or "dora"
  std::string name;       ///< what is special: "core"
  NamedTensors tensors;   ///< under the target that was asked for
};

/// Makes variants for one weight [O, I, *kernel]; O is a multiple of 4, I of 2.
class AdapterVariants {
 public:
  AdapterVariants(std::string target, Shape shape, const std::vector<float>& weight, uint64_t seed)
      : target_(std::move(target)), shape_(std::move(shape)), weight_(weight.begin(), weight.end()), rng_(seed) {}

  /// None where the program has an algorithm that nobody wrote variants for.
  std::vector<AdapterVariant> of(const std::string& algorithm) {
    all_.clear();
    if (algorithm == "lora") add_lora();
    if (algorithm == "loha") add_loha();
    if (algorithm == "lokr") add_lokr();
    if (algorithm == "oft" || algorithm == "boft") add_rotations(algorithm);
    if (algorithm == "glora") add_glora();
    if (algorithm == "dora") add_dora();
    if (algorithm == "ia3") {
      add({algorithm, "output", {draw("weight", {outputs()}, kShare), number("on_input", 0)}}, "");
      add({algorithm, "input", {draw("weight", {inputs()}, kShare), number("on_input", 1)}}, "");
    }
    if (algorithm == "diff") add({algorithm, "", {draw("diff", shape_)}}, "diff");
    if (algorithm == "set") add({algorithm, "", {draw("set_weight", shape_, 0.05)}}, "");
    return std::move(all_);
  }

 private:
  using Named = std::pair<std::string, adapter::Tensor>;
  static constexpr int64_t kRank = 4;
  static constexpr double kShare = 0.4;  ///< of the weight's length: that of the change

  int64_t outputs() const { return shape_[0]; }
  int64_t inputs() const { return shape_[1]; }
  int64_t columns() const { return adapter::matrix_cols(shape_); }
  bool convolution() const { return shape_.size() > 2; }
  Shape ones() const { return Shape(shape_.size() - 2, 1); }
  Shape kernel() const { return {shape_.begin() + 2, shape_.end()}; }
  static Shape joined(Shape front, const Shape& tail) {
    front.insert(front.end(), tail.begin(), tail.end());
    return front;
  }

  Named draw(const std::string& suffix, const Shape& shape, double size = 1, double mean = 0) {
    std::normal_distribution<double> normal(mean, size);
    Named named{target_ + "." + suffix, {shape, std::vector<float>(element_count(shape).value())}};
    for (float& x : named.second.values) x = static_cast<float>(normal(rng_));
    return named;
  }
  Named number(const std::string& suffix, float value) const { return {target_ + "." + suffix, {{}, {value}}}; }

  static double length(const std::vector<double>& values) {
    double squares = 0;
    for (const double x : values) squares += x * x;
    return std::sqrt(squares);
  }

  /// `linear`: the change is linear in tensors with names that end so ("" = as drawn); they make it kShare long.
  void add(AdapterVariant variant, const std::string& linear) {
    if (!linear.empty()) {
      std::vector<double> change = ClosedForm(variant.tensors, target_, shape_).merge(weight_, 1);
      for (size_t i = 0; i < change.size(); ++i) change[i] -= weight_[i];
      const double factor = kShare * length(weight_) / length(change);
      for (auto& [name, tensor] : variant.tensors)
        if (name.ends_with(linear))
          for (float& x : tensor.values) x = static_cast<float>(factor * static_cast<double>(x));
    }
    all_.push_back(std::move(variant));
  }

  NamedTensors lora() {
    return {draw("lora_up.weight", joined({outputs(), kRank}, ones())),
            draw("lora_down.weight", joined({kRank, inputs()}, kernel())), number("alpha", 2)};
  }
  void add_lora() {
    add({"lora", "", lora()}, "up.weight");
    if (convolution())
      add({"lora",
           "core",
           {draw("lora_up.weight", joined({outputs(), kRank}, ones())),
            draw("lora_down.weight", joined({kRank, inputs()}, ones())),
            draw("lora_mid.weight", joined({kRank, kRank}, kernel()))}},
          "up.weight");
  }
  void add_loha() {
    add({"loha",
         "",
         {draw("hada_w1_a", {outputs(), kRank}), draw("hada_w1_b", {kRank, columns()}),
          draw("hada_w2_a", {outputs(), kRank}), draw("hada_w2_b", {kRank, columns()}), number("alpha", 3)}},
        "w1_a");
    if (convolution())
      add({"loha",
           "core",
           {draw("hada_w1_a", {kRank, outputs()}), draw("hada_w1_b", {kRank, inputs()}),
            draw("hada_t1", joined({kRank, kRank}, kernel())), draw("hada_w2_a", {kRank, outputs()}),
            draw("hada_w2_b", {kRank, inputs()}), draw("hada_t2", joined({kRank, kRank}, kernel()))}},
          "w1_a");
  }
  void add_lokr() {
    const int64_t rows = outputs() / 4, width = inputs() / 2;
    add({"lokr", "full", {draw("lokr_w1", {4, 2}), draw("lokr_w2", joined({rows, width}, kernel()))}}, "w1");
    add({"lokr",
         "factored",
         {draw("lokr_w1_a", {4, 1}), draw("lokr_w1_b", {1, 2}), draw("lokr_w2_a", {rows, 3}),
          draw("lokr_w2_b", {3, columns() / 2}), number("alpha", 2)}},
        "w1_a");
    if (convolution())
      add({"lokr",
           "core",
           {draw("lokr_w1", {4, 2}), draw("lokr_w2_a", {3, rows}), draw("lokr_w2_b", {3, width}),
            draw("lokr_t2", joined({3, 3}, kernel()))}},
          "w1");
  }
  void add_rotations(const std::string& algorithm) {
    if (algorithm == "oft") add({"oft", "", {draw("oft_blocks", {outputs() / 4, 4, 4}, 0.08)}}, "");
    if (algorithm == "boft") add({"boft", "", {draw("oft_blocks", {2, outputs() / 2, 2, 2}, 0.1)}}, "");
    AdapterVariant other{algorithm, "rescaled and bound", {}};
    other.tensors.push_back(algorithm == "oft" ? draw("oft_blocks", {outputs() / 2, 2, 2})
                                               : draw("oft_blocks", {2, outputs() / 2, 2, 2}));
    other.tensors.push_back(draw("rescale", joined({outputs(), 1}, ones()), 0.2, 1));
    other.tensors.push_back(number("alpha", 0.2f * std::sqrt(static_cast<float>(outputs()))));
    add(std::move(other), "");
  }
  void add_glora() {
    add({"glora",
         "",
         {draw("a1.weight", joined({inputs(), kRank}, ones())), draw("a2.weight", joined({kRank, inputs()}, ones())),
          draw("b1.weight", joined({outputs(), kRank}, ones()), 0.1),
          draw("b2.weight", joined({kRank, inputs()}, kernel())), number("alpha", 2)}},
        "1.weight");
    add({"glora",
         "old",
         {draw("a1.weight", {kRank, columns()}), draw("a2.weight", {columns(), kRank}),
          draw("b1.weight", {kRank, columns()}), draw("b2.weight", {outputs(), kRank}, 0.1), number("alpha", 2)}},
        "2.weight");
  }
  /// Magnitudes around the lengths of the merged rows or columns.
  void add_dora() {
    for (const bool rows : {true, false}) {
      add({"dora", rows ? "rows" : "columns", lora()}, "up.weight");
      AdapterVariant& variant = all_.back();
      const std::vector<double> v = ClosedForm(variant.tensors, target_, shape_).merge(weight_, 1);
      Named magnitude =
          draw("dora_scale", rows ? joined({outputs(), 1}, ones()) : joined({1, inputs()}, ones()), .2, 1);
      std::vector<double> squares(magnitude.second.values.size());
      for (size_t i = 0; i < v.size(); ++i) {
        const size_t row = i / static_cast<size_t>(columns()), column = i % static_cast<size_t>(columns());
        squares[rows ? row : column / static_cast<size_t>(adapter::kernel_size(shape_))] += v[i] * v[i];
      }
      for (size_t i = 0; i < squares.size(); ++i)
        magnitude.second.values[i] *= static_cast<float>(std::sqrt(squares[i]));
      variant.tensors.push_back(std::move(magnitude));
    }
  }

  std::string target_;
  Shape shape_;
  std::vector<double> weight_;
  std::mt19937_64 rng_;
  std::vector<AdapterVariant> all_;
};

}  // namespace mezzotint::test
