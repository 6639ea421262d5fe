#include "mezzotint/adapter/file.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <fstream>
#include <iterator>
#include <map>
#include <nlohmann/json.hpp>

#include "mezzotint/adapter/file_keys.h"
#include "mezzotint/adapter/peft_config.h"
#include "mezzotint/adapter/rewrites.h"
#include "mezzotint/base/error.h"
#include "mezzotint/base/json_depth.h"
#include "mezzotint/checkpoint/weight_values.h"

namespace mezzotint::adapter {
namespace {

namespace fs = std::filesystem;

std::string_view metadata_value(const io::Metadata& metadata, std::string_view key) {
  for (const auto& [name, value] : metadata)
    if (name == key) return value;
  return "";
}

/// What trainers write about themselves.
struct Trainer {
  bool constraint_per_row = false;  ///< LyCORIS and kohya
  bool rank_stabilized = false;     ///< LyCORIS's rs_lora
};

Trainer find_trainer(const io::Metadata& metadata) {
  Trainer trainer;
  const std::string_view module = metadata_value(metadata, "ss_network_module");
  trainer.constraint_per_row = module.starts_with("lycoris") || module == "networks.oft";
  const std::string_view text = metadata_value(metadata, "ss_network_args");
  if (!module.starts_with("lycoris") || json_too_deep(text)) return trainer;
  const nlohmann::json arguments = nlohmann::json::parse(text, nullptr, false);
  if (!arguments.is_object() || !arguments.contains("rs_lora")) return trainer;
  const nlohmann::json& value = arguments["rs_lora"];  // "True", or a boolean
  trainer.rank_stabilized = value.is_boolean()
                                ? value.get<bool>()
                                : value.is_string() && (value == "True" || value == "true" || value == "1");
  return trainer;
}

struct GroupPart {
  Part part;
  bool used = false;
};

/// The keys under one target.
struct Group {
  std::string target, variant;
  std::vector<GroupPart> parts;

  GroupPart* find(std::string_view role) {
    const auto found = std::ranges::find(parts, role, [](const GroupPart& p) { return p.part.role; });
    return found == parts.end() ? nullptr : &*found;
  }
};

std::string missing_reason(const Group& group) {
  std::string roles;
  for (const GroupPart& part : group.parts) roles += (roles.empty() ? "" : ", ") + std::string(part.part.role);
  if (roles == "weight") return "a plain weight, which is no adapter";
  return fmt::format("no algorithm is complete with what there is for its target ({})", roles);
}

}  // namespace

/// Builds the patches of a file.
class AdapterFileReader {
 public:
  AdapterFileReader(AdapterFile& file, const ReadOptions& options, const std::optional<PeftConfig>& config)
      : file_(file), config_(config), trainer_(find_trainer(file.source().metadata())) {
    if (options.constraint_per_row) trainer_.constraint_per_row = *options.constraint_per_row;
  }

  void read() {
    const std::vector<io::TensorInfo>& tensors = file_.source().tensors();
    std::vector<std::string> keys;
    for (const io::TensorInfo& tensor : tensors) keys.push_back(tensor.name);
    rewrite_ = rewrite_keys(std::move(keys));
    if (!rewrite_.note.empty()) file_.notes_.push_back("read as " + rewrite_.note);
    for (size_t i = 0; i < tensors.size(); ++i) place(i);
    for (Group& group : groups_) {
      add_patches(group);
      for (const GroupPart& part : group.parts)
        if (!part.used) leave_out(part.part.tensor, missing_reason(group));
    }
  }

 private:
  void leave_out(size_t tensor, std::string reason) {
    const std::string& key = file_.source().tensors()[tensor].name;
    const std::string foreign = foreign_reason(key);
    file_.unused_.push_back({key, foreign.empty() ? std::move(reason) : foreign});
  }

  void place(size_t i) {
    using checkpoint::Role;
    const io::TensorInfo& tensor = file_.source().tensors()[i];
    const Role role = file_.model_->role(i);
    if (role != Role::plain && role != Role::codes && role != Role::orphan) return;  // scales of a quantized factor
    Key key = parse_key(rewrite_.keys[i]);
    if (key.role.empty()) return leave_out(i, "no adapter that is known here has a tensor of such a name");
    if (role != Role::codes && !checkpoint::is_readable(tensor.dtype))
      return leave_out(i, fmt::format("{} cannot be read as numbers", name(tensor.dtype)));
    if (role == Role::codes && !file_.model_->layers()[file_.model_->layer_of(i)].consistent)
      return leave_out(i, "it is quantized, but its parameters do not fit");
    if (element_count(tensor.shape).value_or(0) == 0) return leave_out(i, "it is empty");
    const auto [at, fresh] = index_.try_emplace({key.target, key.variant}, groups_.size());
    if (fresh) groups_.push_back({key.target, key.variant, {}});
    Group& group = groups_[at->second];
    if (group.find(key.role))
      return leave_out(i, fmt::format("its target has another {} already, in another dialect", key.role));
    const size_t layer = file_.model_->layer_of(i);
    group.parts.push_back(
        {{key.role, i, role == Role::codes ? file_.model_->layers()[layer].layout.shape : tensor.shape}, false});
  }

  void add_patches(Group& group) {
    Parts parts;
    for (const GroupPart& part : group.parts) parts.parts.push_back(part.part);
    Patch common;
    common.target = group.target;
    common.variant = group.variant;
    const size_t first = file_.patches_.size();
    for (const Algorithm* algorithm : all_algorithms())
      if (algorithm->claims(parts)) add_patch(group, *algorithm, common);
    if (GroupPart* bias = group.find(kBiasDiff)) add_bias(*bias, common, 1);
    GroupPart* up_bias = group.find(kUpBias);
    GroupPart* down = group.find("lora_down");
    if (up_bias && down && down->used) {
      const Patch& lora = *std::find_if(file_.patches_.begin() + static_cast<ptrdiff_t>(first), file_.patches_.end(),
                                        [](const Patch& p) { return p.parts.has("lora_down"); });
      Factors scaling;
      scaling.alpha = lora.alpha;
      scaling.rank_stabilized = lora.rank_stabilized;
      add_bias(*up_bias, common, scaling.scale(matrix_rows(down->part.shape)));
    }
  }

  void add_patch(Group& group, const Algorithm& algorithm, const Patch& common) {
    Patch patch = common;
    patch.algorithm = &algorithm;
    for (const Suffix& suffix : algorithm.suffixes) {
      GroupPart* part = group.find(suffix.role);
      if (!part || patch.parts.has(suffix.role)) continue;
      part->used = true;
      patch.parts.parts.push_back(part->part);
    }
    if (GroupPart* alpha = group.find(kAlpha)) {
      alpha->used = true;
      patch.alpha = read_alpha(alpha->part, algorithm);
      patch.rank_stabilized =
          trainer_.rank_stabilized && algorithm.told_of_rs_lora && algorithm.told_of_rs_lora(patch.parts);
    } else if (config_ && !algorithm.alpha_is_bound) {
      if (const auto scaling = config_->scaling(group.target)) {
        patch.alpha = scaling->alpha;
        patch.rank_stabilized = scaling->rank_stabilized;
      }
    }
    patch.constraint_per_row = trainer_.constraint_per_row;
    for (const std::string_view role : {kDoraScale, kPeftMagnitude}) {
      GroupPart* magnitude = algorithm.takes_magnitude ? group.find(role) : nullptr;
      if (!magnitude) continue;
      magnitude->used = true;
      patch.magnitude = magnitude->part;
      patch.peft_magnitude = role == kPeftMagnitude;
    }
    if (group.target == rewrite_.enlarged && patch.parts.has("lora_up") && patch.parts.has("lora_down"))
      patch.enlarged = {matrix_rows(patch.parts.shape("lora_up")), matrix_cols(patch.parts.shape("lora_down"))};
    file_.patches_.push_back(std::move(patch));
  }

  void add_bias(GroupPart& part, const Patch& common, double factor) {
    part.used = true;
    Patch patch = common;
    patch.algorithm = find_algorithm("diff");
    patch.parameter = Parameter::bias;
    patch.parts.parts = {{"diff", part.part.tensor, part.part.shape}};
    patch.factor = factor;
    file_.patches_.push_back(std::move(patch));
  }

  /// kohya and LyCORIS take 0 for the rank: the same as no alpha.
  std::optional<double> read_alpha(const Part& part, const Algorithm& algorithm) const {
    const auto alpha = static_cast<double>(file_.read(part).values[0]);
    if (!std::isfinite(alpha)) {
      throw Error({.name = "bad-adapter",
                   .problem = "an alpha is not finite",
                   .file = file_.source().files().front().string(),
                   .tensor = file_.source().tensors()[part.tensor].name});
    }
    return alpha == 0 && !algorithm.alpha_is_bound ? std::nullopt : std::optional(alpha);
  }

  AdapterFile& file_;
  const std::optional<PeftConfig>& config_;
  Trainer trainer_;
  Rewrite rewrite_;
  std::vector<Group> groups_;
  std::map<std::pair<std::string, std::string>, size_t> index_;
};

AdapterFile AdapterFile::open(const fs::path& path, const ReadOptions& options) {
  io::Source source = io::Source::open(path);
  const fs::path file = source.files().front();
  const fs::path beside = file.parent_path() / "adapter_config.json";
  std::string config;
  if (file.filename().string().starts_with("adapter_model") && fs::is_regular_file(beside)) {
    std::ifstream in(beside, std::ios::binary);
    config.assign(std::istreambuf_iterator<char>(in), {});
    if (config.empty())
      throw Error({.name = "bad-adapter-config", .problem = "it is empty or cannot be read", .file = beside.string()});
  }
  return AdapterFile(std::move(source), options, config);
}

AdapterFile::AdapterFile(io::Source source, const ReadOptions& options, std::string_view config)
    : model_(std::make_shared<const checkpoint::Model>(std::move(source))) {
  std::optional<PeftConfig> peft;
  const std::string_view metadata = metadata_value(this->source().metadata(), "lora_adapter_metadata");
  if (!metadata.empty()) {
    peft.emplace(metadata);
    notes_.push_back("alphas that no tensor says come from the metadata lora_adapter_metadata");
  } else if (!config.empty()) {
    peft.emplace(config);
    notes_.push_back("alphas that no tensor says come from adapter_config.json");
  }
  if (peft) notes_.insert(notes_.end(), peft->notes().begin(), peft->notes().end());
  AdapterFileReader(*this, options, peft).read();
  if (!patches_.empty()) return;
  throw Error({.name = "no-adapter",
               .problem = "it holds no adapter",
               .file = this->source().files().front().string(),
               .found = unused_.empty() ? "no tensor" : unused_.front().key + ": " + unused_.front().reason});
}

uint64_t AdapterFile::bytes(const Patch& patch) const {
  uint64_t bytes = 0;
  for (const Part& part : patch.parts.parts) bytes += 4 * element_count(part.shape).value_or(0);
  return bytes + (patch.magnitude ? 4 * element_count(patch.magnitude->shape).value_or(0) : 0);
}

Tensor AdapterFile::read(const Part& part) const {
  const size_t layer = model_->layer_of(part.tensor);
  const checkpoint::WeightValues values = layer == checkpoint::Model::npos
                                              ? checkpoint::WeightValues(*model_, part.tensor)
                                              : checkpoint::WeightValues(*model_, model_->layers()[layer]);
  Tensor tensor{part.shape, std::vector<float>(values.elements())};
  std::vector<std::byte> scratch;
  for (const checkpoint::Run& run : checkpoint::cut_runs(values, nullptr, uint64_t{1} << 20))
    values.read(run.first, run.count, tensor.values.data() + run.first, scratch);
  return tensor;
}

Factors AdapterFile::read(const Patch& patch) const {
  Factors factors;
  for (const Part& part : patch.parts.parts) factors.tensors.emplace_back(part.role, read(part));
  if (!patch.enlarged.empty()) {
    factors.tensors.emplace_back("reshape_weight", Tensor{{static_cast<int64_t>(patch.enlarged.size())},
                                                          {patch.enlarged.begin(), patch.enlarged.end()}});
  }
  factors.alpha = patch.alpha;
  factors.rank_stabilized = patch.rank_stabilized;
  factors.target = patch.target;
  factors.factor = patch.factor;
  factors.constraint_per_row = patch.constraint_per_row;
  return factors;
}

}  // namespace mezzotint::adapter
