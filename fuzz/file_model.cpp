#include <algorithm>
#include <cassert>
#include <nlohmann/json.hpp>

#include "fuzz.h"

namespace mezzotint::fuzz {

std::string quote(std::string_view text) {
  return nlohmann::json(text).dump();
}

Entry::Field* Entry::field(std::string_view quoted_name) {
  const auto found = std::find_if(fields.begin(), fields.end(), [&](const Field& f) { return f.name == quoted_name; });
  return found == fields.end() ? nullptr : &*found;
}

void FileModel::add(std::string_view name, DType dtype, Shape shape, std::string_view bytes) {
  assert(byte_count(dtype, shape) == bytes.size());
  const uint64_t begin = data.size(), end = begin + bytes.size();
  data += bytes;
  Entry entry{
      .key = quote(name), .name = std::string(name), .dtype = dtype, .shape = shape, .begin = begin, .end = end};
  entry.fields = {{"\"dtype\"", quote(mezzotint::name(dtype))},
                  {"\"shape\"", nlohmann::json(shape).dump()},
                  {"\"data_offsets\"", nlohmann::json({begin, end}).dump()}};
  entries.push_back(std::move(entry));
}

void FileModel::replace(size_t index, DType dtype, const Shape& shape, const std::string& bytes) {
  FileModel rebuilt;
  rebuilt.top = top;
  for (size_t i = 0; i < entries.size(); ++i) {
    const Entry& entry = entries[i];
    if (i == index)
      rebuilt.add(entry.name, dtype, shape, bytes);
    else
      rebuilt.add(entry.name, entry.dtype, entry.shape,
                  std::string_view(data).substr(entry.begin, entry.end - entry.begin));
    rebuilt.entries.back().touched = entry.touched || i == index;
  }
  *this = std::move(rebuilt);
}

void FileModel::remove(size_t index) {
  FileModel rebuilt;
  rebuilt.top = top;
  for (size_t i = 0; i < entries.size(); ++i) {
    const Entry& entry = entries[i];
    if (i == index) continue;
    rebuilt.add(entry.name, entry.dtype, entry.shape,
                std::string_view(data).substr(entry.begin, entry.end - entry.begin));
    rebuilt.entries.back().touched = entry.touched;
  }
  *this = std::move(rebuilt);
}

namespace {

std::string entry_text(const Entry& entry) {
  std::string out = entry.key + ":";
  if (!entry.whole.empty()) return out + entry.whole;
  out += '{';
  for (size_t i = 0; i < entry.fields.size(); ++i)
    out += (i ? "," : "") + entry.fields[i].name + ":" + entry.fields[i].value;
  return out + '}';
}

}  // namespace

std::string FileModel::header() const {
  if (text) return *text;
  std::string out = before + "{";
  const char* comma = "";
  for (const auto& field : top) {
    out += comma + field.name + ":" + field.value;
    comma = ",";
  }
  for (const auto& entry : entries) {
    out += comma + entry_text(entry);
    comma = ",";
  }
  return out + "}" + after;
}

std::string FileModel::bytes() const {
  const std::string json = header();
  std::string out;
  uint64_t count = length.value_or(json.size());
  for (int i = 0; i < 8; ++i, count >>= 8) out += static_cast<char>(count & 0xff);
  out += json + data;
  if (cut) out.resize(std::min<uint64_t>(*cut, out.size()));
  return out;
}

void FileModel::touch_all() {
  for (auto& entry : entries) entry.touched = true;
}

std::string& FileModel::as_text(size_t at) {
  if (!text) {
    size_t position = before.size() + 1;
    for (const auto& field : top) position += field.name.size() + 1 + field.value.size() + 1;
    for (auto& entry : entries) {
      const size_t end = position + entry_text(entry).size();
      if (at + 1 >= position && at <= end + 1) entry.touched = true;
      position = end + 1;
    }
    text = header();
  } else {
    touch_all();  // places have moved
  }
  return *text;
}

size_t FileModel::entry_with_data(Rng& rng) const {
  for (size_t start = rng() % entries.size(), i = 0; i < entries.size(); ++i) {
    const size_t at = (start + i) % entries.size();
    if (entries[at].end > entries[at].begin) return at;
  }
  assert(false && "a seed must have a tensor with data");
  return 0;
}

size_t FileModel::last() const {
  size_t best = 0;
  for (size_t i = 1; i < entries.size(); ++i)
    if (entries[i].end > entries[best].end ||
        (entries[i].end == entries[best].end && entries[i].begin < entries[best].begin))
      best = i;
  return best;
}

}  // namespace mezzotint::fuzz
