#include "support/closed_form.h"

#include <cmath>
#include <numeric>

namespace mezzotint::test {
namespace {

/// Keys of PEFT and of kohya for the same.
std::string kohya(const std::string& suffix) {
  if (suffix == "lora_A.weight") return "lora_down.weight";
  if (suffix == "lora_B.weight") return "lora_up.weight";
  return suffix == "lora_magnitude_vector" ? "dora_scale" : suffix;
}

}  // namespace

ClosedForm::ClosedForm(const std::vector<std::pair<std::string, adapter::Tensor>>& tensors, const std::string& target,
                       const Shape& weight, bool per_row)
    : outputs_(weight.at(0)),
      inputs_(weight.at(1)),
      kernel_(std::accumulate(weight.begin() + 2, weight.end(), int64_t{1}, std::multiplies<>())),
      per_row_(per_row) {
  for (const auto& [name, tensor] : tensors) {
    if (!name.starts_with(target + ".")) continue;
    const std::string suffix = kohya(name.substr(target.size() + 1));
    const auto count = static_cast<int64_t>(tensor.values.size());
    const int64_t rows = tensor.shape.empty() ? 1 : tensor.shape[0];
    parts_[suffix] = {rows, count / rows, {tensor.values.begin(), tensor.values.end()}};
    shapes_[suffix] = tensor.shape;
  }
}

ClosedForm::Part ClosedForm::product(const Part& a, const Part& b) {
  Part out{a.rows, b.cols, Values(static_cast<size_t>(a.rows * b.cols))};
  for (int64_t i = 0; i < a.rows; ++i)
    for (int64_t k = 0; k < a.cols; ++k)
      for (int64_t j = 0; j < b.cols; ++j) out.at(i, j) += a.at(i, k) * b.at(k, j);
  return out;
}

ClosedForm::Part ClosedForm::transposed(const Part& a) {
  Part out{a.cols, a.rows, Values(a.values.size())};
  for (int64_t i = 0; i < a.rows; ++i)
    for (int64_t j = 0; j < a.cols; ++j) out.at(j, i) = a.at(i, j);
  return out;
}

// out[p, q, k] = sum_ij core[i, j, k] a[i, p] b[j, q]
ClosedForm::Part ClosedForm::tucker(const Part& core, const Part& a, const Part& b) {
  const int64_t kernel = core.cols / b.rows;
  Part inner{core.rows, b.cols * kernel, Values(static_cast<size_t>(core.rows * b.cols * kernel))};
  for (int64_t i = 0; i < core.rows; ++i)
    for (int64_t j = 0; j < b.rows; ++j)
      for (int64_t q = 0; q < b.cols; ++q)
        for (int64_t k = 0; k < kernel; ++k) inner.at(i, q * kernel + k) += core.at(i, j * kernel + k) * b.at(j, q);
  return product(transposed(a), inner);
}

double ClosedForm::alpha_over(int64_t rank) const {
  return has("alpha") ? part("alpha").values[0] / static_cast<double>(rank) : 1;
}

ClosedForm::Part ClosedForm::lora() const {
  const Part &up = part("lora_up.weight"), &down = part("lora_down.weight");
  Part delta = has("lora_mid.weight") ? tucker(part("lora_mid.weight"), transposed(up), down) : product(up, down);
  for (double& x : delta.values) x *= alpha_over(down.rows);
  return delta;
}

ClosedForm::Part ClosedForm::loha() const {
  const auto side = [&](const std::string& n) {
    const Part &a = part("hada_w" + n + "_a"), &b = part("hada_w" + n + "_b");
    return has("hada_t" + n) ? tucker(part("hada_t" + n), a, b) : product(a, b);
  };
  Part delta = side("1");
  const Part other = side("2");
  for (size_t i = 0; i < delta.values.size(); ++i)
    delta.values[i] *= other.values[i] * alpha_over(part("hada_w1_b").rows);
  return delta;
}

// delta[l * P + p, (m * Q + q), k] = w1[l, m] w2[p, q, k]
ClosedForm::Part ClosedForm::lokr() const {
  double scale = 1;
  if (!has("lokr_w1")) scale = alpha_over(part("lokr_w1_b").rows);
  if (!has("lokr_w2")) scale = alpha_over(part("lokr_w2_b").rows);
  const Part small = has("lokr_w1") ? part("lokr_w1") : product(part("lokr_w1_a"), part("lokr_w1_b"));
  const Part big = has("lokr_w2")   ? part("lokr_w2")
                   : has("lokr_t2") ? tucker(part("lokr_t2"), part("lokr_w2_a"), part("lokr_w2_b"))
                                    : product(part("lokr_w2_a"), part("lokr_w2_b"));
  Part delta{outputs_, inputs_ * kernel_, Values(static_cast<size_t>(outputs_ * inputs_ * kernel_))};
  for (int64_t r = 0; r < delta.rows; ++r)
    for (int64_t c = 0; c < delta.cols; ++c)
      delta.at(r, c) = scale * small.at(r / big.rows, c / big.cols) * big.at(r % big.rows, c % big.cols);
  return delta;
}

ClosedForm::Part ClosedForm::glora(const Values& w) const {
  const Part &a1 = part("a1.weight"), &a2 = part("a2.weight"), &b1 = part("b1.weight"), &b2 = part("b2.weight");
  const Part weight{outputs_, inputs_ * kernel_, w};
  if (a1.rows != inputs_ || b1.rows != outputs_ || b1.cols != b2.rows) {  // the old layout, which knows no kernel
    Part delta = product(product(weight, a2), a1);
    const Part added = product(b2, b1);
    for (size_t i = 0; i < w.size(); ++i) delta.values[i] = (delta.values[i] + added.values[i]) * alpha_over(a1.rows);
    return delta;
  }
  const Part mixing = product(a1, a2);
  Part delta = has("bm.weight") ? tucker(part("bm.weight"), transposed(b1), b2) : product(b1, b2);
  for (int64_t o = 0; o < outputs_; ++o)
    for (int64_t i = 0; i < inputs_; ++i)
      for (int64_t j = 0; j < inputs_; ++j)
        for (int64_t k = 0; k < kernel_; ++k)
          delta.at(o, j * kernel_ + k) += weight.at(o, i * kernel_ + k) * mixing.at(i, j);
  for (double& x : delta.values) x *= alpha_over(a2.rows);
  return delta;
}

std::vector<ClosedForm::Part> ClosedForm::rotations() const {
  const Shape& shape = shapes_.at("oft_blocks");
  const int64_t b = shape.back(), count = static_cast<int64_t>(part("oft_blocks").values.size()) / (b * b);
  std::vector<Part> q(static_cast<size_t>(count), Part{b, b, Values(static_cast<size_t>(b * b))});
  const double* from = part("oft_blocks").values.data();
  double squares = 0;
  for (Part& block : q) {
    for (int64_t i = 0; i < b; ++i)
      for (int64_t j = 0; j < b; ++j) squares += std::pow(block.at(i, j) = from[i * b + j] - from[j * b + i], 2);
    from += b * b;
  }
  const double bound = has("alpha") ? part("alpha").values[0] * (per_row_ ? static_cast<double>(outputs_) : 1.0) : 0.0;
  const double shorter = bound > 0 && squares > bound * bound ? bound / std::sqrt(squares) : 1;
  for (Part& block : q) {
    // Gauss and Jordan on I - Q; a matrix I minus a skew one always has an inverse.
    Part left{b, b, Values(static_cast<size_t>(b * b))}, inverse = left, plus = left;
    for (int64_t i = 0; i < b; ++i)
      for (int64_t j = 0; j < b; ++j) {
        const double one = i == j ? 1 : 0;
        left.at(i, j) = one - shorter * block.at(i, j);
        plus.at(i, j) = one + shorter * block.at(i, j);
        inverse.at(i, j) = one;
      }
    for (int64_t k = 0; k < b; ++k) {
      int64_t pivot = k;
      for (int64_t i = k + 1; i < b; ++i)
        if (std::abs(left.at(i, k)) > std::abs(left.at(pivot, k))) pivot = i;
      for (int64_t j = 0; j < b; ++j) {
        std::swap(left.at(k, j), left.at(pivot, j));
        std::swap(inverse.at(k, j), inverse.at(pivot, j));
      }
      const double by = left.at(k, k);
      for (int64_t j = 0; j < b; ++j) {
        left.at(k, j) /= by;
        inverse.at(k, j) /= by;
      }
      for (int64_t i = 0; i < b; ++i) {
        const double times = i == k ? 0 : left.at(i, k);
        for (int64_t j = 0; j < b; ++j) {
          left.at(i, j) -= times * left.at(k, j);
          inverse.at(i, j) -= times * inverse.at(k, j);
        }
      }
    }
    block = product(plus, inverse);
  }
  return q;
}

void ClosedForm::rescale(Values& w, double s) const {
  if (!has("rescale")) return;
  const int64_t cols = inputs_ * kernel_;
  for (size_t i = 0; i < w.size(); ++i) w[i] *= 1 + s * (part("rescale").values[i / static_cast<size_t>(cols)] - 1);
}

// Rows of a block become R' times them; the strength is between W and that.
ClosedForm::Values ClosedForm::oft(const Values& w, double s) const {
  const std::vector<Part> r = rotations();
  const int64_t b = r[0].rows, cols = inputs_ * kernel_;
  Values out = w;
  for (int64_t row = 0; row < outputs_; ++row)
    for (int64_t c = 0; c < cols; ++c) {
      double turned = 0;
      for (int64_t n = 0; n < b; ++n)
        turned += r[static_cast<size_t>(row / b)].at(n, row % b) * w[static_cast<size_t>((row / b * b + n) * cols + c)];
      out[static_cast<size_t>(row * cols + c)] += s * (turned - w[static_cast<size_t>(row * cols + c)]);
    }
  rescale(out, s);
  return out;
}

// Stage by stage R times rows that are 2^stage * b / 2 apart; the strength is between I and R in each.
ClosedForm::Values ClosedForm::boft(const Values& w, double s) const {
  const std::vector<Part> r = rotations();
  const Shape& shape = shapes_.at("oft_blocks");
  const int64_t stages = shape[0], blocks = shape[1], b = shape[2], cols = inputs_ * kernel_;
  Values now = w;
  for (int64_t stage = 0; stage < stages; ++stage) {
    const int64_t half = (int64_t{1} << stage) * b / 2;
    // Position p in blocks' order is row order[p]: (c, 2, half) read as (c, half, 2).
    std::vector<int64_t> order;
    for (int64_t c = 0; c < outputs_ / (2 * half); ++c)
      for (int64_t k = 0; k < half; ++k)
        for (int64_t side = 0; side < 2; ++side) order.push_back((c * 2 + side) * half + k);
    Values next = now;
    for (int64_t p = 0; p < outputs_; ++p) {
      const Part& block = r[static_cast<size_t>(stage * blocks + p / b)];
      for (int64_t c = 0; c < cols; ++c) {
        double mixed = 0;
        for (int64_t j = 0; j < b; ++j)
          mixed += block.at(p % b, j) * now[static_cast<size_t>(order[static_cast<size_t>(p / b * b + j)] * cols + c)];
        double& x = next[static_cast<size_t>(order[static_cast<size_t>(p)] * cols + c)];
        x += s * (mixed - x);
      }
    }
    now = std::move(next);
  }
  rescale(now, s);
  return now;
}

ClosedForm::Values ClosedForm::ia3(const Values& w, double s) const {
  const bool on_input = part("on_input").values[0] != 0;
  const Values& v = part("weight").values;
  Values out = w;
  for (int64_t o = 0; o < outputs_; ++o)
    for (int64_t i = 0; i < inputs_; ++i)
      for (int64_t k = 0; k < kernel_; ++k)
        out[static_cast<size_t>((o * inputs_ + i) * kernel_ + k)] *= 1 + s * v[static_cast<size_t>(on_input ? i : o)];
  return out;
}

ClosedForm::Values ClosedForm::changed(const Values& w, double s) const {
  if (has("oft_blocks")) return shapes_.at("oft_blocks").size() == 4 ? boft(w, s) : oft(w, s);
  if (has("on_input")) return ia3(w, s);
  if (has("set_weight")) return s == 0 ? w : part("set_weight").values;
  const Part delta = has("lora_up.weight") ? lora()
                     : has("hada_w1_a")    ? loha()
                     : has("a1.weight")    ? glora(w)
                     : has("diff")         ? part("diff")
                                           : lokr();
  Values out = w;
  for (size_t i = 0; i < w.size(); ++i) out[i] += s * delta.values[i];
  return out;
}

// Every row, or every input channel, of V gets the length that the magnitude says.
ClosedForm::Values ClosedForm::decomposed(const Values& v, const Part& magnitude) const {
  const bool rows = static_cast<int64_t>(magnitude.values.size()) == outputs_ && shapes_.at("dora_scale")[0] != 1;
  const bool peft = shapes_.at("dora_scale").size() > 1 && shapes_.at("dora_scale")[1] == outputs_;
  const auto vector_of = [&](size_t i) {
    const size_t row = i / static_cast<size_t>(inputs_ * kernel_), column = i / static_cast<size_t>(kernel_);
    return rows || peft ? row : column % static_cast<size_t>(inputs_);
  };
  Values squares(magnitude.values.size()), out = v;
  for (size_t i = 0; i < v.size(); ++i) squares.at(vector_of(i)) += v[i] * v[i];
  for (size_t i = 0; i < v.size(); ++i) out[i] *= magnitude.values[vector_of(i)] / std::sqrt(squares[vector_of(i)]);
  return out;
}

ClosedForm::Values ClosedForm::merge(const Values& w, double s) const {
  if (!has("dora_scale")) return changed(w, s);
  const Values behind = decomposed(changed(w, 1), part("dora_scale"));
  Values out = w;
  for (size_t i = 0; i < w.size(); ++i) out[i] += s * (behind[i] - w[i]);
  return out;
}

}  // namespace mezzotint::test
