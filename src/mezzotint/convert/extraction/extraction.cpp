#include "mezzotint/convert/extraction/extraction.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>

#include "mezzotint/adapter/tensor.h"
#include "mezzotint/base/error.h"
#include "mezzotint/base/version.h"
#include "mezzotint/checkpoint/suffixes.h"
#include "mezzotint/convert/components.h"
#include "mezzotint/convert/correction/layer_errors.h"
#include "mezzotint/convert/correction/layer_progress.h"
#include "mezzotint/convert/correction/lora_file.h"
#include "mezzotint/convert/correction/lora_names.h"
#include "mezzotint/convert/model_entries.h"
#include "mezzotint/convert/smoothing/rescaled.h"

namespace mezzotint::convert {
namespace {

using checkpoint::kDotWeight;
using checkpoint::Model;
using checkpoint::Role;

constexpr std::string_view kDotBias = ".bias";

/// Whether a tensor is a parameter of the model.
bool is_trained(const Model& model, const ModelEntry& entry) {
  if (entry.layer != nullptr) return true;
  return model.role(entry.tensor) == Role::plain && facts(entry.info(model).dtype).is_float &&
         !model.is_foreign(entry.tensor) && entry.info(model).bytes > 0;
}

/// The same for a diffusion model on its own and within a whole checkpoint.
std::string bare_name(std::string_view tensor) {
  const ComponentName split = split_component(tensor);
  return std::string(split.component.empty() || split.component == "diffusion_model" ? split.inner : tensor);
}

class Extractor {
 public:
  Extractor(const Model& base, const Model& tuned, const ExtractOptions& options)
      : base_(base),
        tuned_(tuned),
        options_(options),
        components_(find_components(base.source().tensors())),
        file_(options.dtype, options.rank) {
    const auto check = [](const char* what, double value) {
      if (!std::isfinite(value) || value == 0)
        throw Error({.name = "bad-option",
                     .problem = fmt::format("{} has to be a finite number other than 0", what),
                     .found = fmt::format("{}", value)});
    };
    check("the strength", options.strength);
    if (options.alpha) check("alpha", *options.alpha);
  }

  Extraction run(const std::filesystem::path& output) {
    LoraFile::check(output, inputs(), options_.overwrite);
    find_pairs();
    rescaled_ = rescaled_tensors(tuned_, base_);
    for (const Pair& pair : pairs_) progress_.expect(pair.bytes);
    for (const Pair& pair : pairs_) {
      progress_.begin(pair.tensor, pair.bytes);
      extract(pair);
    }
    finish();
    if (!file_.empty()) write(output);
    return std::move(result_);
  }

 private:
  struct Pair {
    std::string tensor;
    ModelEntry base, tuned;
    uint64_t bytes = 0;
  };

  /// What a tensor becomes, and the part of ||D||^2 that is lost.
  struct Stored {
    std::vector<std::byte> bytes, down;  // whole, or up and down
    double alpha = 0, rest = 0;
  };

  std::vector<const io::Source*> inputs() const { return {&base_.source(), &tuned_.source()}; }

  void find_pairs() {
    names_ = entries_of(base_);
    ModelEntries others;
    for (auto& [name, entry] : entries_of(tuned_))
      if (is_trained(tuned_, entry)) others.emplace(name, entry);
    std::map<std::string, std::string> bare;  // those that are not in BASE under the same name
    for (const auto& [name, entry] : others)
      if (names_.find(name) == names_.end()) bare.emplace(bare_name(name), name);
    std::vector<std::string> only_in_base, reshaped;
    for (const auto& [name, entry] : names_) {
      if (!is_trained(base_, entry)) continue;
      auto other = others.find(name);
      if (other == others.end())
        if (const auto found = bare.find(bare_name(name)); found != bare.end()) other = others.find(found->second);
      if (other == others.end()) {
        only_in_base.push_back(name);
        continue;
      }
      const ModelEntry tuned = other->second;
      others.erase(other);
      if (entry.shape(base_) != tuned.shape(tuned_)) {
        reshaped.push_back(name);
        continue;
      }
      pairs_.push_back({name, entry, tuned, entry.info(base_).bytes + tuned.info(tuned_).bytes});
    }
    if (pairs_.empty())
      throw Error({.name = "no-common-layers",
                   .problem = "the files have no weight of the same name and shape",
                   .file = tuned_.source().files().front().string(),
                   .advice = "Give the model that was trained first, then what came of it."});
    const auto warn = [&](size_t count, const std::string& first, const char* what) {
      if (count > 0) result_.warnings.push_back(fmt::format("{} tensors {} (first: {}).", count, what, first));
    };
    warn(reshaped.size(), reshaped.empty() ? "" : reshaped[0], "have other shapes and are left out");
    warn(only_in_base.size(), only_in_base.empty() ? "" : only_in_base[0], "are only in the base and are left out");
    warn(others.size(), others.empty() ? "" : others.begin()->first, "are only in the tuned model and are left out");
  }

  void extract(const Pair& pair) {
    if (identical_tensors(base_, pair.base, tuned_, pair.tuned) > 0) {
      ++result_.identical;
      return;
    }
    ExtractedTensor tensor{.name = checkpoint::layer_name(pair.tensor),
                           .from = pair.base.label(base_),
                           .to = pair.tuned.label(tuned_),
                           .shape = pair.base.shape(base_)};
    auto base = pair.base.values(base_), tuned = pair.tuned.values(tuned_);
    if (!base || !tuned) return leave_out(std::move(tensor), "its values cannot be read");
    if (rescaled_.contains(pair.base.info(base_).name))
      return leave_out(std::move(tensor), "the base is smoothed, and the norm in front took over its factors");
    if (std::min(base->span(), tuned->span()) < base->elements())
      return leave_out(std::move(tensor), "it is a bank of experts, which LoRA files have no form for");
    const bool factors = pair.tensor.ends_with(kDotWeight) && tensor.shape.size() >= 2;
    const int64_t rows = factors ? adapter::matrix_rows(tensor.shape) : 1;
    const int64_t cols = static_cast<int64_t>(base->elements()) / rows;
    LayerErrors difference(std::move(*tuned), std::move(*base), rows, cols, options_.max_memory / 2);
    const Metric metric(cols);
    Energy weight, change;
    difference.measure(metric, options_.threads, weight, change);
    if (change.plain == 0) {
      ++result_.identical;
      return;
    }
    weight_ += weight.plain;
    change_ += change.plain;
    tensor.change = root_ratio(change.plain, weight.plain);
    const std::optional<std::string> key = key_of(pair.tensor, factors);
    if (!key) return leave_out(std::move(tensor), "ComfyUI applies no LoRA to this part");
    progress_.report(0.3);
    const Stored stored = factors ? make_factors(tensor, difference) : make_whole(difference);
    // Not so either where a factor left the range of the dtype.
    if (!(stored.rest < change.plain)) {
      tensor.rank = 0;
      return leave_out(std::move(tensor), fmt::format("its difference is lost in {}", name(options_.dtype)));
    }
    kept_ += change.plain - stored.rest;
    tensor.energy = 1 - stored.rest / change.plain;
    tensor.key = *key;
    if (factors)
      file_.add(*key, tensor.shape, tensor.rank, stored.bytes, stored.down, stored.alpha);
    else
      file_.add(*key, tensor.shape, stored.bytes);
    ++result_.written;
    result_.tensors.push_back(std::move(tensor));
  }

  /// Nothing for parts that get no LoRA.
  std::optional<std::string> key_of(const std::string& tensor, bool factors) const {
    const std::string_view name = tensor;
    const auto with = [&](size_t cut, const char* suffix) -> std::optional<std::string> {
      auto key = lora_key(components_, name.substr(0, name.size() - cut));
      if (key) *key += suffix;
      return key;
    };
    if (name.ends_with(kDotWeight)) return with(kDotWeight.size(), factors ? "" : ".diff");
    // Loaders find a bias by its weight.
    if (name.ends_with(kDotBias)) {
      const std::string weight = tensor.substr(0, tensor.size() - kDotBias.size()) + std::string(kDotWeight);
      if (names_.contains(weight)) return with(kDotBias.size(), ".diff_b");
    }
    return with(0, ".diff");
  }

  Stored make_factors(ExtractedTensor& tensor, const LayerErrors& difference) {
    const BlockedMatrix& matrix = difference.matrix();
    const Metric metric(matrix.cols);
    tensor.rank = std::min({options_.rank, matrix.rows, matrix.cols});
    LowRank factors = nearest_of_rank(matrix, metric, tensor.rank, options_.threads);
    progress_.report(0.8);
    Stored stored;
    stored.alpha = options_.alpha.value_or(static_cast<double>(tensor.rank));
    // What loaders multiply the product by, and what it has to be multiplied by before.
    const double scale = double{static_cast<float>(stored.alpha)} / static_cast<double>(tensor.rank);
    const double factor = options_.strength / scale, root = std::sqrt(std::abs(factor));
    multiply(factors.up, std::copysign(root, factor));
    multiply(factors.down, root);
    stored.bytes = file_.round(factors.up);
    stored.down = file_.round(factors.down);
    multiply(factors.up, 1 / factor);
    stored.rest = difference.measure_rest(metric, factors, options_.threads).plain;
    return stored;
  }

  Stored make_whole(const LayerErrors& difference) const {
    const BlockedMatrix& matrix = difference.matrix();
    std::vector<float> buffer(static_cast<size_t>(matrix.cols));
    const float* exact = matrix.read(0, buffer.data());
    std::vector<float> values(exact, exact + matrix.cols);
    multiply(values, options_.strength);
    Stored stored;
    stored.bytes = file_.round(values);
    for (size_t i = 0; i < values.size(); ++i) {
      const double left = double{exact[i]} - double{values[i]} / options_.strength;
      stored.rest += left * left;
    }
    return stored;
  }

  static void multiply(std::vector<float>& values, double factor) {
    for (float& value : values) value = static_cast<float>(double{value} * factor);
  }

  void leave_out(ExtractedTensor tensor, std::string reason) {
    tensor.reason = std::move(reason);
    result_.tensors.push_back(std::move(tensor));
  }

  void finish() {
    std::stable_sort(result_.tensors.begin(), result_.tensors.end(),
                     [](const ExtractedTensor& a, const ExtractedTensor& b) { return a.change > b.change; });
    result_.change = root_ratio(change_, weight_);
    result_.energy = change_ > 0 ? kept_ / change_ : 0;
  }

  void write(const std::filesystem::path& output) {
    nlohmann::ordered_json made{{"rank", options_.rank}, {"dtype", name(options_.dtype)}};
    if (options_.alpha) made["alpha"] = *options_.alpha;
    if (options_.strength != 1) made["strength"] = options_.strength;
    made["energy"] = result_.energy;
    auto& layers = made["layers"] = nlohmann::ordered_json::object();
    for (const ExtractedTensor& tensor : result_.tensors)
      if (!tensor.key.empty()) layers[tensor.key] = {{"rank", tensor.rank}, {"energy", tensor.energy}};
    const nlohmann::ordered_json origin{{"version", kVersion}, {"extraction", made}};
    result_.bytes = file_.write(output, origin.dump(), inputs(), options_.overwrite);
  }

  const Model& base_;
  const Model& tuned_;
  const ExtractOptions& options_;
  std::vector<Component> components_;
  LoraFile file_;
  ModelEntries names_;  // of BASE
  std::map<std::string, std::vector<float>, std::less<>> rescaled_;
  std::vector<Pair> pairs_;
  double weight_ = 0, change_ = 0, kept_ = 0;
  LayerProgress progress_{options_.progress, options_.cancel};
  Extraction result_;
};

}  // namespace

Extraction extract_lora(const Model& base, const Model& tuned, const std::filesystem::path& output,
                        const ExtractOptions& options) {
  return Extractor(base, tuned, options).run(output);
}

}  // namespace mezzotint::convert
