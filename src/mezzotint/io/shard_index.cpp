#include <algorithm>
#include <map>
#include <nlohmann/json.hpp>

#include "mezzotint/base/error.h"
#include "mezzotint/io/header.h"
#include "mezzotint/io/input_files.h"
#include "mezzotint/io/platform.h"
#include "mezzotint/io/text.h"

namespace mezzotint::io {
namespace fs = std::filesystem;
namespace {

[[noreturn]] void fail(const fs::path& path, std::string problem, std::string found = {}) {
  throw Error(
      {.name = "bad-index",
       .problem = std::move(problem),
       .file = path.string(),
       .found = std::move(found),
       .advice = "Expected is {\"weight_map\": {\"tensor\": \"shard.safetensors\", ...}}: fetch the file again"});
}

/// Collects the pairs of the top-level object "weight_map"; everything else is skipped.
class IndexHandler final : public nlohmann::json_sax<nlohmann::json> {
 public:
  explicit IndexHandler(const fs::path& path) : path_(path) {}

  std::vector<std::pair<std::string, std::string>> pairs;
  bool has_map = false;

  bool null() override { return other(); }
  bool boolean(bool) override { return other(); }
  bool number_integer(number_integer_t) override { return other(); }
  bool number_unsigned(number_unsigned_t) override { return other(); }
  bool number_float(number_float_t, const string_t&) override { return other(); }
  bool binary(binary_t&) override { return other(); }
  bool string(string_t& value) override {
    if (!in_map()) return other();
    pairs.emplace_back(std::move(key_), std::move(value));
    return true;
  }
  bool key(string_t& value) override {
    if (depth_ == 1) in_map_ = value == "weight_map";
    key_ = std::move(value);
    return true;
  }
  bool start_object(size_t) override {
    if (depth_ == 1 && in_map_) {
      if (has_map) fail(path_, "weight_map occurs twice");
      has_map = true;
    } else {
      other();
    }
    return enter();
  }
  bool end_object() override { return --depth_, true; }
  bool start_array(size_t) override { return other() && enter(); }
  bool end_array() override { return --depth_, true; }
  bool parse_error(size_t position, const std::string&, const nlohmann::detail::exception&) override {
    fail(path_, "the index is not well-formed JSON", "the fault at byte " + std::to_string(position));
  }

 private:
  bool in_map() const { return depth_ == 2 && in_map_; }
  bool enter() {
    if (++depth_ > kMaxJsonDepth) fail(path_, "the index nests too deep");
    return true;
  }
  /// A value that is neither the map nor a string in it.
  bool other() {
    if (depth_ == 1 && in_map_) fail(path_, "weight_map is not an object");
    if (in_map()) fail(path_, "the shard of tensor '" + printable(key_) + "' is not a string");
    return true;
  }

  const fs::path& path_;
  std::string key_;
  size_t depth_ = 0;
  bool in_map_ = false;
};

std::string read_text(const fs::path& path) {
  const auto file = platform::File::open_read(path);
  const uint64_t size = file.size();
  if (size > kMaxHeaderBytes) fail(path, "the index is too large", std::to_string(size) + " bytes");
  std::string text(size, '\0');
  text.resize(file.read_at(0, text.data(), text.size()));
  return text;
}

}  // namespace

InputFiles read_index(const fs::path& path) {
  const std::string text = read_text(path);
  if (text.empty()) fail(path, "the index is empty");
  // The JSON library takes a zero byte for the end of the text.
  if (text.find('\0') != std::string::npos) fail(path, "the index is not text");
  IndexHandler handler(path);
  nlohmann::json::sax_parse(text.begin(), text.end(), &handler);
  if (!handler.has_map) fail(path, "the index has no weight_map");
  if (handler.pairs.empty()) fail(path, "the weight_map is empty");

  InputFiles input{.index = path};
  std::map<std::string, size_t> positions;
  for (const auto& [tensor, shard] : handler.pairs) {
    // A shard lies beside its index; anything else could point anywhere on the disk.
    if (shard.empty() || shard == "." || shard == ".." || shard.find_first_of("/\\") != std::string::npos ||
        shard.find('\0') != std::string::npos)
      fail(path, "the shard of tensor '" + printable(tensor) + "' is not a plain file name", printable(shard));
    positions.emplace(shard, 0);
  }
  for (auto& [shard, position] : positions) {  // in the order of their names, which is their numbers
    position = input.files.size();
    input.files.push_back(path.parent_path() / shard);
  }
  require_all(input.files, path);
  for (auto& [tensor, shard] : handler.pairs) input.weight_map.emplace_back(std::move(tensor), positions[shard]);
  return input;
}

}  // namespace mezzotint::io
