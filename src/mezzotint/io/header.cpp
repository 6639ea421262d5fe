#include "mezzotint/io/header.h"

#include <algorithm>
#include <charconv>
#include <limits>
#include <nlohmann/json.hpp>
#include <numeric>
#include <optional>

#include "mezzotint/base/error.h"
#include "mezzotint/io/text.h"

namespace mezzotint::io {
namespace {

struct Detail {
  std::string problem, tensor, expected, found, advice;
};

[[noreturn]] void fail(HeaderFault fault, const std::string& file, Detail detail) {
  throw Error({.name = name(fault),
               .problem = std::move(detail.problem),
               .file = file,
               .tensor = printable(detail.tensor),
               .expected = std::move(detail.expected),
               .found = std::move(detail.found),
               .advice = std::move(detail.advice)});
}

std::string bytes_text(uint64_t bytes) {
  return std::to_string(bytes) + (bytes == 1 ? " byte" : " bytes");
}

std::string range_text(uint64_t begin, uint64_t end) {
  return "[" + std::to_string(begin) + ", " + std::to_string(end) + "]";
}

constexpr char kIncomplete[] = "The download or copy looks incomplete: fetch the file again";
constexpr char kDamaged[] = "The header is damaged or was written by a faulty program: fetch the file again";

/// An entry while it is being read. Offsets are relative to the data buffer.
struct Entry {
  std::string name;
  std::optional<DType> dtype;
  std::optional<Shape> shape;
  std::vector<uint64_t> offsets;
  bool has_offsets = false;
};

/// Receives the JSON of a header piece by piece. Nothing is kept but the entries, so memory follows the header's size.
class HeaderHandler final : public nlohmann::json_sax<nlohmann::json> {
 public:
  HeaderHandler(Header& header, const std::string& file) : header_(header), file_(file) {}

  bool null() override {
    if (place_ == Place::root && key_ == kMetadata) return begin_metadata(), true;  // as good as none
    return scalar("null");
  }
  bool boolean(bool) override { return scalar("a boolean"); }
  bool number_integer(number_integer_t value) override {  // only called for negative numbers
    if (place_ == Place::shape)
      fail(HeaderFault::shape_negative, file_,
           {"a dimension is negative", entry_.name, "0 or more", std::to_string(value), kDamaged});
    return scalar("a negative number");
  }
  bool number_unsigned(number_unsigned_t value) override {
    if (place_ == Place::shape) return add_dimension(value), true;
    if (place_ == Place::offsets) return add_offset(value), true;
    return scalar("a number");
  }
  bool number_float(number_float_t, const string_t& text) override {
    const bool whole = text.find_first_of(".eE") == std::string::npos;
    if (place_ == Place::shape && whole) {
      const bool negative = text.starts_with('-');
      fail(negative ? HeaderFault::shape_negative : HeaderFault::shape_too_large, file_,
           {negative ? "a dimension is negative" : "a dimension does not fit 63 bits", entry_.name, "0 to 2^63 - 1",
            printable(text), kDamaged});
    }
    return scalar(whole ? "a number that does not fit 63 bits" : "a fraction");
  }
  bool string(string_t& value) override {
    if (place_ == Place::metadata) return add_metadata(value), true;
    if (place_ == Place::entry && key_ == "dtype") return set_dtype(value), true;
    return scalar("a string");
  }
  bool binary(binary_t&) override { return scalar("binary data"); }

  bool key(string_t& value) override {
    if (skipping_ == 0) key_ = std::move(value);
    return true;
  }

  bool start_object(size_t) override {
    enter();
    if (skipping_ > 0) return ++skipping_, true;
    switch (place_) {
      case Place::nowhere:
        place_ = Place::root;
        return true;
      case Place::root:
        if (key_ == kMetadata) {
          begin_metadata();
          place_ = Place::metadata;
        } else {
          entry_ = {.name = std::move(key_)};
          place_ = Place::entry;
        }
        return true;
      case Place::entry:
        reject_known_field("an object");
        skipping_ = 1;
        return true;
      default:
        return scalar("an object");
    }
  }
  bool end_object() override {
    --depth_;
    if (skipping_ > 0) return --skipping_, true;
    if (place_ == Place::entry) finish_entry();
    place_ = place_ == Place::root ? Place::nowhere : Place::root;
    return true;
  }
  bool start_array(size_t) override {
    enter();
    if (skipping_ > 0) return ++skipping_, true;
    if (place_ != Place::entry) return scalar("a list");
    if (key_ == "shape") {
      if (entry_.shape) duplicate_field();
      entry_.shape.emplace();
      place_ = Place::shape;
    } else if (key_ == "data_offsets") {
      if (entry_.has_offsets) duplicate_field();
      entry_.has_offsets = true;
      place_ = Place::offsets;
    } else {
      reject_known_field("a list");
      skipping_ = 1;
    }
    return true;
  }
  bool end_array() override {
    --depth_;
    if (skipping_ > 0) return --skipping_, true;
    place_ = Place::entry;
    return true;
  }

  bool parse_error(size_t position, const std::string&, const nlohmann::detail::exception& error) override {
    // 406: a number that no double can hold, which is still JSON; it can only stand where it does not belong.
    const std::string problem =
        error.id == 406 ? "the header holds a number beyond all bounds" : "the header is not well-formed JSON";
    fail(HeaderFault::not_json, file_, {problem, "", "", "the fault at byte " + std::to_string(position), kDamaged});
  }

 private:
  enum class Place { nowhere, root, metadata, entry, shape, offsets };
  static constexpr std::string_view kMetadata = "__metadata__";

  void enter() {
    if (++depth_ > kMaxJsonDepth)
      fail(HeaderFault::too_deep, file_,
           {"the header nests too deep", "", "at most " + std::to_string(kMaxJsonDepth) + " levels", "more", kDamaged});
  }

  /// A value that is no object, list, or anything its place wants.
  bool scalar(const char* found) {
    if (skipping_ > 0) return true;
    switch (place_) {
      case Place::nowhere:
        fail(HeaderFault::not_object, file_, {"the header is not an object", "", "a JSON object", found, kDamaged});
      case Place::root:
        if (key_ == kMetadata)
          fail(HeaderFault::metadata_not_object, file_,
               {"__metadata__ is not an object", "", "an object of strings", found, kDamaged});
        fail(HeaderFault::entry_not_object, file_,
             {"the entry is not an object", key_, "dtype, shape and data_offsets", found, kDamaged});
      case Place::metadata:
        fail(HeaderFault::metadata_not_string, file_,
             {"the metadata value of '" + printable(key_) + "' is not a string", "", "a string", found,
              "Write structured metadata as a string that holds JSON"});
      case Place::entry:
        reject_known_field(found);
        return true;
      case Place::shape:
        fail(HeaderFault::shape_bad, file_,
             {"the shape is not a list of whole numbers", entry_.name, "", found, kDamaged});
      case Place::offsets:
        bad_offsets(found);
    }
    return true;
  }

  void reject_known_field(const char* found) {
    if (key_ == "dtype")
      fail(HeaderFault::dtype_bad, file_, {"the dtype is not a string", entry_.name, "a string", found, kDamaged});
    if (key_ == "shape")
      fail(HeaderFault::shape_bad, file_,
           {"the shape is not a list of whole numbers", entry_.name, "a list", found, kDamaged});
    if (key_ == "data_offsets") bad_offsets(found);
  }

  [[noreturn]] void bad_offsets(const std::string& found) {
    fail(HeaderFault::offsets_bad, file_,
         {"data_offsets is not a pair of whole numbers", entry_.name, "[begin, end]", found, kDamaged});
  }

  [[noreturn]] void duplicate_field() {
    fail(HeaderFault::duplicate_field, file_, {"the entry has " + key_ + " twice", entry_.name, "", "", kDamaged});
  }

  void begin_metadata() {
    if (std::exchange(has_metadata_, true))
      fail(HeaderFault::duplicate_metadata, file_, {"__metadata__ occurs twice", "", "", "", kDamaged});
  }

  void add_metadata(std::string& value) { header_.metadata.emplace_back(std::move(key_), std::move(value)); }

  void set_dtype(const std::string& text) {
    if (entry_.dtype) duplicate_field();
    entry_.dtype = dtype_from_name(text);
    if (!entry_.dtype)
      fail(HeaderFault::dtype_unknown, file_,
           {"the dtype is unknown", entry_.name, "a dtype of safetensors 0.8.0", printable(text),
            "The file may come from a newer program"});
  }

  void add_dimension(uint64_t value) {
    if (value > static_cast<uint64_t>(std::numeric_limits<int64_t>::max()))
      fail(HeaderFault::shape_too_large, file_,
           {"a dimension does not fit 63 bits", entry_.name, "0 to 2^63 - 1", std::to_string(value), kDamaged});
    if (entry_.shape->size() == kMaxRank)
      fail(HeaderFault::rank_too_large, file_,
           {"the shape has too many dimensions", entry_.name, "at most " + std::to_string(kMaxRank), "more", kDamaged});
    entry_.shape->push_back(static_cast<int64_t>(value));
  }

  void add_offset(uint64_t value) {
    if (entry_.offsets.size() == 2) bad_offsets("more than two numbers");
    if (value > static_cast<uint64_t>(std::numeric_limits<int64_t>::max()))
      bad_offsets("a number that does not fit 63 bits");
    entry_.offsets.push_back(value);
  }

  void finish_entry() {
    const auto missing = [&](HeaderFault fault, const char* field) {
      fail(fault, file_, {std::string("the entry has no ") + field, entry_.name, "", "", kDamaged});
    };
    if (!entry_.dtype) missing(HeaderFault::dtype_missing, "dtype");
    if (!entry_.shape) missing(HeaderFault::shape_missing, "shape");
    if (!entry_.has_offsets) missing(HeaderFault::offsets_missing, "data_offsets");
    if (entry_.offsets.size() != 2) bad_offsets("fewer than two numbers");
    const uint64_t begin = entry_.offsets[0], end = entry_.offsets[1];
    if (begin > end)
      fail(HeaderFault::offsets_reversed, file_,
           {"data_offsets begins after it ends", entry_.name, "begin <= end", range_text(begin, end), kDamaged});

    const std::string layout = std::string(mezzotint::name(*entry_.dtype)) + " " + to_string(*entry_.shape);
    const auto bytes = byte_count(*entry_.dtype, *entry_.shape);
    if (!bytes) {
      const auto count = element_count(*entry_.shape);
      const unsigned bits = facts(*entry_.dtype).bits;
      if (!count || *count > (uint64_t{1} << 62) / bits)
        fail(HeaderFault::element_overflow, file_,
             {"the tensor is larger than any file", entry_.name, "at most 2^62 elements and bits", layout, kDamaged});
      fail(HeaderFault::partial_byte, file_,
           {"the elements do not fill whole bytes", entry_.name, "a multiple of 8 bits", layout, kDamaged});
    }
    if (end - begin != *bytes)
      fail(HeaderFault::size_mismatch, file_,
           {"data_offsets does not span what dtype and shape need", entry_.name, bytes_text(*bytes) + " for " + layout,
            bytes_text(end - begin) + " at " + range_text(begin, end), kDamaged});
    header_.tensors.push_back({.name = std::move(entry_.name),
                               .dtype = *entry_.dtype,
                               .shape = std::move(*entry_.shape),
                               .bytes = *bytes,
                               .offset = begin});
  }

  Header& header_;
  const std::string& file_;
  Place place_ = Place::nowhere;
  std::string key_;
  Entry entry_;
  size_t depth_ = 0;
  size_t skipping_ = 0;  ///< open objects and lists of a field that is skipped
  bool has_metadata_ = false;
};

/// Of a key given twice the last value counts, at the place of the first.
void merge_repeated_keys(Metadata& metadata) {
  std::vector<size_t> order(metadata.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::stable_sort(order.begin(), order.end(),
                   [&](size_t a, size_t b) { return metadata[a].first < metadata[b].first; });
  std::vector<bool> drop(metadata.size());
  bool any = false;
  for (size_t first = 0; first < order.size();) {
    size_t end = first + 1;
    while (end < order.size() && metadata[order[end]].first == metadata[order[first]].first) ++end;
    if (end - first > 1) metadata[order[first]].second = std::move(metadata[order[end - 1]].second);
    for (size_t i = first + 1; i < end; ++i) drop[order[i]] = any = true;
    first = end;
  }
  if (!any) return;
  Metadata kept;
  for (size_t i = 0; i < metadata.size(); ++i)
    if (!drop[i]) kept.push_back(std::move(metadata[i]));
  metadata = std::move(kept);
}

void check_names(const Header& header, const std::string& file) {
  std::vector<std::string_view> names;
  names.reserve(header.tensors.size());
  for (const auto& tensor : header.tensors) names.push_back(tensor.name);
  std::sort(names.begin(), names.end());
  const auto twice = std::adjacent_find(names.begin(), names.end());
  if (twice != names.end())
    fail(HeaderFault::duplicate_tensor, file,
         {"two entries have this name", std::string(*twice), "", "",
          "It is not possible to tell which of them is meant: fetch the file again"});
}

/// The tensors must tile the data buffer exactly. Sorts them and turns offsets into file offsets.
void check_tiling(Header& header, const std::string& file) {
  auto& tensors = header.tensors;
  std::stable_sort(tensors.begin(), tensors.end(), [](const TensorInfo& a, const TensorInfo& b) {
    return a.offset != b.offset ? a.offset < b.offset : a.bytes < b.bytes;
  });
  uint64_t end = 0;  // both terms stay below 2^63
  for (size_t i = 0; i < tensors.size(); ++i) {
    const auto& tensor = tensors[i];
    if (tensor.offset < end)
      fail(HeaderFault::overlap, file,
           {"the tensor shares bytes with '" + printable(tensors[i - 1].name) + "'", tensor.name,
            "begin at " + std::to_string(end), range_text(tensor.offset, tensor.offset + tensor.bytes), kDamaged});
    if (tensor.offset > end)
      fail(HeaderFault::gap, file,
           {bytes_text(tensor.offset - end) + " before the tensor belong to none", tensor.name,
            "begin at " + std::to_string(end), range_text(tensor.offset, tensor.offset + tensor.bytes), kDamaged});
    end = tensor.offset + tensor.bytes;
  }
  const uint64_t available = header.file_bytes - header.data_start;
  const std::string expected = "a file of " + bytes_text(header.data_start + end);
  if (end > available) {
    const auto cut = std::find_if(tensors.begin(), tensors.end(),
                                  [&](const TensorInfo& tensor) { return tensor.offset + tensor.bytes > available; });
    fail(HeaderFault::truncated, file,
         {"the file ends before its data does; the first tensor cut is '" + printable(cut->name) + "'", "", expected,
          bytes_text(header.file_bytes), kIncomplete});
  }
  if (end < available)
    fail(HeaderFault::trailing_bytes, file,
         {bytes_text(available - end) + " follow the data of the last tensor", "", expected,
          bytes_text(header.file_bytes),
          "Something was appended to the file, or its header lost entries: fetch the file again"});
  for (auto& tensor : tensors) tensor.offset += header.data_start;
}

}  // namespace

uint64_t parse_header_length(std::span<const char> first, uint64_t file_bytes, const std::string& file) {
  if (first.size() < 8 || file_bytes < 8)
    fail(HeaderFault::file_too_short, file,
         {"the file is too short for a safetensors file", "", "at least 8 bytes", bytes_text(file_bytes), kIncomplete});
  uint64_t length = 0;
  for (int i = 7; i >= 0; --i) length = length << 8 | static_cast<unsigned char>(first[static_cast<size_t>(i)]);
  if (length == 0)
    fail(HeaderFault::length_zero, file,
         {"the header length is zero", "", "", "", "The file is no safetensors file, or the download failed"});
  if (length > kMaxHeaderBytes)
    fail(HeaderFault::too_large, file,
         {"the header is too large", "", "at most " + bytes_text(kMaxHeaderBytes), bytes_text(length),
          "The file is probably not a safetensors file"});
  if (length > file_bytes - 8)
    fail(HeaderFault::past_end, file,
         {"the header reaches past the end of the file", "", "a file of more than " + bytes_text(length + 8),
          bytes_text(file_bytes), kIncomplete});
  return length;
}

Header parse_header(std::span<const char> json, uint64_t file_bytes, const std::string& file) {
  const std::string_view text(json.data(), json.size());
  if (const size_t at = find_invalid_utf8(text); at != std::string_view::npos)
    fail(HeaderFault::not_utf8, file,
         {"the header is not UTF-8", "", "", "the fault at byte " + std::to_string(at), kDamaged});
  // The JSON library would skip a byte order mark and take a zero byte for the end of the text.
  size_t stray = text.starts_with("\xef\xbb\xbf") ? 0 : text.find('\0');
  if (stray != std::string_view::npos)
    fail(HeaderFault::not_json, file,
         {"the header is not well-formed JSON", "", "", "the fault at byte " + std::to_string(stray), kDamaged});

  Header header;
  header.data_start = 8 + json.size();
  header.file_bytes = file_bytes;
  HeaderHandler handler(header, file);
  nlohmann::json::sax_parse(text.begin(), text.end(), &handler);
  merge_repeated_keys(header.metadata);
  check_names(header, file);
  check_tiling(header, file);
  return header;
}

}  // namespace mezzotint::io
