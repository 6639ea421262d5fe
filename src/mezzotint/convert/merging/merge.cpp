#include "mezzotint/convert/merging/merge.h"

#include <fmt/format.h>

#include <algorithm>
#include <bit>
#include <cassert>
#include <cmath>
#include <numeric>

#include "mezzotint/base/error.h"
#include "mezzotint/io/hash.h"

namespace mezzotint::convert {
namespace {

constexpr double kDampening = 0.9;
// Rows that are merged at a time, as a power of two: enough to keep products busy, few where rows are long.
constexpr int64_t kMostRows = 64, kMostElements = int64_t{1} << 18;

int64_t rows_at_once(int64_t cols) {
  const auto rows = static_cast<uint64_t>(kMostElements / std::max<int64_t>(cols, 1));
  return std::clamp<int64_t>(static_cast<int64_t>(std::bit_floor(rows)), 1, kMostRows);
}

/// The first line tells what there is, the others what was left out.
void tell_summary(std::string_view what, const std::string& text, std::vector<std::string>& notes,
                  std::vector<std::string>& warnings) {
  const size_t end = text.find('\n');
  const std::string head = text.substr(0, end), file = head.substr(0, head.find(": "));
  notes.push_back(fmt::format("{} {}.", what, head));
  for (size_t at = end; at != std::string::npos;) {
    const size_t next = text.find('\n', at + 1);
    const std::string line = text.substr(at + 1, next == std::string::npos ? next : next - at - 1);
    warnings.push_back(file + ": " + line.substr(line.find_first_not_of(' ')) + ".");
    at = next;
  }
}

}  // namespace

Merge::Merge(const checkpoint::Model& model, const ConvertOptions& options, std::vector<std::string>& notes,
             std::vector<std::string>& warnings)
    : Merge(
          model,
          AdapterRequest{.files = options.merge_loras, .dampen = options.merge_dampen, .strict = options.merge_strict},
          notes, warnings) {}

Merge::Merge(const checkpoint::Model& model, const AdapterRequest& request, std::vector<std::string>& notes,
             std::vector<std::string>& warnings) {
  const adapter::KeyMap map(model);
  io::Hash64 hash;
  double dampening = 1;
  for (const MergeLora& lora : request.files) {
    if (!std::isfinite(lora.strength))
      throw Error({.name = "bad-option",
                   .problem = "the strength of an adapter is no finite number",
                   .file = lora.file,
                   .found = fmt::format("{}", lora.strength)});
    files_.push_back(adapter::AdapterFile::open(lora.file));
    const adapter::AdapterFile& file = files_.back();
    const adapter::Matching matching = map.match(file);
    if (request.strict) adapter::require_all(file, matching);
    const std::string name = file.source().files().front().filename().string();
    if (matching.matches.empty()) {
      const bool any = !matching.unmatched.empty();
      throw Error({.name = "adapter-unrelated",
                   .problem = "nothing in the adapter has a place in the model",
                   .file = lora.file,
                   .tensor = any ? file.patches()[matching.unmatched[0].patch].target : "",
                   .found = any ? matching.unmatched[0].reason : ""});
    }
    for (const std::string& note : file.notes()) notes.push_back(name + ": " + note + ".");
    tell_summary(request.what, adapter::summary(file, matching), notes, warnings);
    const double strength = lora.strength * dampening;
    if (request.dampen) dampening *= kDampening;
    if (strength != lora.strength) notes.push_back(fmt::format("{}: strength {:g}, dampened.", name, strength));
    for (const adapter::Match& match : matching.matches) add(files_.size() - 1, match, strength);
    hash.add(file.source().fingerprint()).add(std::bit_cast<uint64_t>(strength));
  }
  fingerprint_ = hash.value();
}

void Merge::add(size_t file, const adapter::Match& match, double strength) {
  const adapter::AdapterFile& source = files_[file];
  const adapter::Patch& patch = source.patches()[match.patch];
  const auto [at, fresh] = tensors_.try_emplace(match.tensor);
  MergedTensor& tensor = at->second;
  if (fresh) {
    tensor.layer = match.layer;
    tensor.before = tensor.after = match.shape;
    tensor.granule = std::min(rows_at_once(tensor.cols()), tensor.rows());
  }
  const Shape shape = adapter::Stack(tensor.after).shape_of(match.target);
  if (const std::string reason = adapter::misfit(patch, shape); !reason.empty())
    throw Error({.name = "adapter-shape",
                 .problem = "it does not fit a weight that another adapter enlarged: " + reason,
                 .file = source.source().files().front().string(),
                 .tensor = patch.target});
  const adapter::Outlook outlook = adapter::outlook(source, patch, shape);
  if (outlook.shape != shape) tensor.after = outlook.shape;
  const int64_t all = tensor.rows(), rows = adapter::matrix_rows(shape);
  const bool aligned =
      match.target.row0 % outlook.granule == 0 && (!match.target.swap_halves || rows / 2 % outlook.granule == 0);
  if (outlook.granule > 1)
    tensor.granule = aligned && outlook.granule < rows ? std::lcm(tensor.granule, outlook.granule) : all;
  if (tensor.granule > all || tensor.after != tensor.before) tensor.granule = all;
  tensor.rank += outlook.rank;
  tensor.bytes += source.bytes(patch);
  tensor.patches.push_back({file, match.patch, strength, match.target});
}

adapter::Stack Merge::load(const MergedTensor& tensor) const {
  adapter::Stack stack(tensor.before);
  for (const MergedPatch& patch : tensor.patches) {
    const adapter::AdapterFile& file = files_[patch.file];
    stack.add(adapter::load(file, file.patches()[patch.patch], stack.shape_of(patch.target)), patch.strength,
              patch.target);
  }
  return stack;
}

int64_t merge_granule(const MergedTensor& tensor, const formats::Layout& layout) {
  const int64_t elements = std::min(tensor.granule, tensor.rows()) * tensor.cols();
  const int64_t rows = elements / std::gcd(elements, layout.cols);
  return std::min(std::lcm(rows, layout.row_granule), layout.total_rows());
}

void merge_rows(const MergedTensor& tensor, const adapter::Stack& stack, const formats::Layout& layout, int64_t row0,
                int64_t rows, float* values) {
  const int64_t cols = tensor.cols(), first = row0 * layout.cols / cols, end = (row0 + rows) * layout.cols / cols;
  assert(first * cols == row0 * layout.cols && end * cols == (row0 + rows) * layout.cols);
  assert(first % tensor.granule == 0 && (end % tensor.granule == 0 || end == tensor.rows()));
  for (int64_t row = first; row < end; row += tensor.granule)
    stack.apply({row, std::min(tensor.granule, end - row)}, values + (row - first) * cols);
}

}  // namespace mezzotint::convert
