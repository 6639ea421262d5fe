#pragma once
#include <cstdint>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "mezzotint/adapter/tensor.h"

/// Merges in float64 from the papers' formulas, index by index, for weights of any size. They share no code with the
/// library; tests/adapter/golden_test.cpp holds them beside make_golden.py, and so beside LyCORIS.
namespace mezzotint::test {

class ClosedForm {
 public:
  using Values = std::vector<double>;

  /// `tensors`: of `target`, named as in a file. `per_row`: alpha of OFT and BOFT counts per row.
  ClosedForm(const std::vector<std::pair<std::string, adapter::Tensor>>& tensors, const std::string& target,
             const Shape& weight, bool per_row = false);

  /// The weight with the adapter at a strength.
  Values merge(const Values& weight, double strength) const;

 private:
  /// A matrix: a tensor without the boundaries of its dimensions behind the first.
  struct Part {
    int64_t rows = 0, cols = 0;
    Values values;
    double at(int64_t r, int64_t c) const { return values[static_cast<size_t>(r * cols + c)]; }
    double& at(int64_t r, int64_t c) { return values[static_cast<size_t>(r * cols + c)]; }
  };

  bool has(const std::string& suffix) const { return parts_.contains(suffix); }
  const Part& part(const std::string& suffix) const { return parts_.at(suffix); }
  double alpha_over(int64_t rank) const;

  Values changed(const Values& w, double s) const;
  Values decomposed(const Values& w, const Part& magnitude) const;
  Part lora() const;
  Part loha() const;
  Part lokr() const;
  Part glora(const Values& w) const;
  Values oft(const Values& w, double s) const;
  Values boft(const Values& w, double s) const;
  Values ia3(const Values& w, double s) const;
  void rescale(Values& w, double s) const;
  /// (I + Q)(I - Q)^-1 of every block.
  std::vector<Part> rotations() const;

  static Part product(const Part& a, const Part& b);
  static Part transposed(const Part& a);
  /// a [r, O] and b [s, I] around core [r, s * kernel]: [O, I * kernel].
  static Part tucker(const Part& core, const Part& a, const Part& b);

  std::map<std::string, Part> parts_;
  std::map<std::string, Shape> shapes_;
  int64_t outputs_, inputs_, kernel_;
  bool per_row_;
};

}  // namespace mezzotint::test
