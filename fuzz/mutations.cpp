#include <algorithm>
#include <utility>

#include "fuzz.h"

namespace mezzotint::fuzz {
namespace {

constexpr char kDtype[] = "\"dtype\"", kShape[] = "\"shape\"", kOffsets[] = "\"data_offsets\"";

size_t below(Rng& rng, size_t count) {
  return static_cast<size_t>(rng() % count);
}

const char* pick(Rng& rng, std::initializer_list<const char*> choices) {
  return choices.begin()[below(rng, choices.size())];
}

Entry& touch(FileModel& model, size_t at) {
  model.entries[at].touched = true;
  return model.entries[at];
}

Entry& touch_any(FileModel& model, Rng& rng) {
  return touch(model, below(rng, model.entries.size()));
}

/// Sets a field of a random entry to JSON text.
Answer set(FileModel& model, Rng& rng, const char* field, std::string value, Answer answer) {
  Entry& entry = touch_any(model, rng);
  Entry::Field* place = entry.field(field);
  if (!place || !entry.whole.empty()) return "";
  place->value = std::move(value);
  return answer;
}

void set_offsets(Entry& entry, uint64_t begin, uint64_t end) {
  if (auto* field = entry.field(kOffsets)) field->value = "[" + std::to_string(begin) + "," + std::to_string(end) + "]";
}

Answer drop_field(FileModel& model, Rng& rng, const char* field, Answer answer) {
  Entry& entry = touch_any(model, rng);
  if (!entry.whole.empty() || std::erase_if(entry.fields, [&](const auto& f) { return f.name == field; }) == 0)
    return "";
  return answer;
}

std::string nested(Rng& rng, size_t depth) {
  if (rng() % 2) return std::string(depth, '[') + std::string(depth, ']');
  std::string open, close;
  for (size_t i = 0; i < depth; ++i) open += "{\"x\":", close += '}';
  return open + "0" + close;
}

std::string junk(Rng& rng, size_t size) {
  std::string out;
  while (size-- > 0) out += static_cast<char>(rng());
  return out;
}

const Mutation kHeader[] = {
    // Harmless: the file must still be read.
    [](FileModel& m, Rng& rng) -> Answer {
      auto& fields = m.entries[below(rng, m.entries.size())].fields;
      const std::string name = "\"x" + std::to_string(rng() % 1000) + "\"";
      fields.insert(fields.begin() + static_cast<std::ptrdiff_t>(below(rng, fields.size() + 1)),
                    {name, pick(rng, {"0", "-1e3", "null", "\"dtype\"", "[[{}],{\"shape\":[-1]}]", "{\"dtype\":{}}"})});
      return "ok";
    },
    [](FileModel& m, Rng& rng) -> Answer { return std::shuffle(m.entries.begin(), m.entries.end(), rng), "ok"; },
    [](FileModel& m, Rng& rng) -> Answer {
      auto& fields = m.entries[below(rng, m.entries.size())].fields;
      return std::shuffle(fields.begin(), fields.end(), rng), "ok";
    },
    [](FileModel& m, Rng& rng) -> Answer {
      Entry& entry = m.entries[below(rng, m.entries.size())];
      std::string key = "\"";
      for (const char c : entry.name) {
        constexpr char hex[] = "0123456789aBcDeF";
        const auto value = static_cast<unsigned char>(c);
        if (value >= 0x80) return "ok";
        key += {'\\', 'u', '0', '0', hex[value >> 4], hex[value & 15]};
      }
      entry.key = key + "\"";
      return "ok";
    },
    [](FileModel& m, Rng& rng) -> Answer {
      (rng() % 2 ? m.before : m.after) += pick(rng, {" ", "\n", "\t\r\n  ", "        "});
      return "ok";
    },
    [](FileModel& m, Rng&) -> Answer {
      if (!m.top.empty()) return "";
      m.top = {{"\"__metadata__\"", R"({"a":"1","\u0061":"2","format":"pt"})"}};
      return "ok";
    },
    [](FileModel& m, Rng& rng) -> Answer {  // the same bytes, seen as one row
      Entry& entry = touch(m, m.entry_with_data(rng));
      const auto count = element_count(entry.shape);
      if (auto* shape = entry.field(kShape)) shape->value = "[1," + std::to_string(*count) + "]";
      return "ok";
    },

    // The header as a whole.
    [](FileModel& m, Rng& rng) -> Answer {
      std::string text = m.header();
      m.touch_all();
      m.text = rng() % 2 ? "[" + text + "]" : pick(rng, {"null", "1", "\"x\"", "[]", "true", "-1"});
      return "header-not-object";
    },
    [](FileModel& m, Rng& rng) -> Answer {
      m.after += pick(rng, {"{}", "}", ",", "x", "//", "0"});
      return "header-not-json";
    },
    [](FileModel& m, Rng& rng) -> Answer {
      const size_t at = below(rng, m.header().size());
      m.as_text(at).insert(at, 1, '\0');
      return "header-not-json|header-not-utf8";  // the latter inside a character
    },
    [](FileModel& m, Rng& rng) -> Answer {  // a parser may take a zero byte for the end
      m.after += '\0';
      if (rng() % 2) m.after += pick(rng, {"{}", " ", "x"});
      return "header-not-json";
    },
    [](FileModel& m, Rng& rng) -> Answer {
      const size_t at = below(rng, m.header().size());
      m.as_text(at).resize(at);
      m.touch_all();
      return m.text->empty() ? "header-length-zero" : "header-not-json|header-not-utf8";
    },
    [](FileModel& m, Rng& rng) -> Answer {
      const size_t at = below(rng, m.header().size());
      m.as_text(at).insert(at, pick(rng, {"\xff", "\xc0\x80", "\xed\xa0\x80", "\xf5\x80\x80\x80", "\xfe"}));
      return "header-not-utf8";
    },
    [](FileModel& m, Rng& rng) -> Answer {
      m.entries[below(rng, m.entries.size())].fields.push_back({"\"deep\"", nested(rng, 127 + below(rng, 3000))});
      return "header-too-deep";
    },

    // Metadata.
    [](FileModel& m, Rng& rng) -> Answer {
      if (!m.top.empty()) return "";
      m.top = {{"\"__metadata__\"", pick(rng, {"[]", "1", "\"x\"", "true", "-3", "[{}]"})}};
      return "metadata-not-object";
    },
    [](FileModel& m, Rng& rng) -> Answer {
      if (!m.top.empty()) return "";
      const char* value = pick(rng, {"1", "null", "{}", "[]", "false", "1.5", "[\"x\"]"});
      m.top = {{"\"__metadata__\"", std::string(R"({"a":"b","c":)") + value + "}"}};
      return "metadata-not-string";
    },
    [](FileModel& m, Rng& rng) -> Answer {
      if (!m.top.empty()) return "";
      m.top.assign(2, {"\"__metadata__\"", pick(rng, {"{}", "null", "{\"a\":\"b\"}"})});
      return "duplicate-metadata";
    },

    // An entry.
    [](FileModel& m, Rng& rng) -> Answer {
      touch_any(m, rng).whole = pick(rng, {"1", "null", "[]", "\"x\"", "true", "[{}]", "-1", "0.5"});
      return "entry-not-object";
    },
    [](FileModel& m, Rng& rng) -> Answer {
      Entry copy = m.entries[below(rng, m.entries.size())];
      if (!copy.whole.empty()) return "";
      m.touch_all();
      m.entries.insert(m.entries.begin() + static_cast<std::ptrdiff_t>(below(rng, m.entries.size() + 1)), copy);
      return "duplicate-tensor";
    },
    [](FileModel& m, Rng& rng) -> Answer {
      Entry& entry = touch_any(m, rng);
      if (entry.fields.empty()) return "";
      entry.fields.push_back(entry.fields[below(rng, entry.fields.size())]);
      return entry.fields.back().name.starts_with("\"x") ? "ok" : "duplicate-field";
    },
    [](FileModel& m, Rng& rng) { return drop_field(m, rng, kDtype, "dtype-missing"); },
    [](FileModel& m, Rng& rng) { return drop_field(m, rng, kShape, "shape-missing"); },
    [](FileModel& m, Rng& rng) { return drop_field(m, rng, kOffsets, "offsets-missing"); },
    [](FileModel& m, Rng& rng) {
      return set(m, rng, kDtype, pick(rng, {"1", "null", "[\"F32\"]", "{}", "true", "-1", "0.5"}), "bad-dtype");
    },
    [](FileModel& m, Rng& rng) {
      return set(m, rng, kDtype,
                 pick(rng, {"\"\"", "\"f32\"", "\"F32 \"", "\"FLOAT\"", "\"F8\"", "\"I4\"", "\"\\u001b[2J\""}),
                 "unknown-dtype");
    },
    [](FileModel& m, Rng& rng) -> Answer {
      Entry& entry = touch(m, m.entry_with_data(rng));
      const auto& other = all_dtypes()[below(rng, all_dtypes().size())];
      if (auto* dtype = entry.field(kDtype)) dtype->value = quote(other.name);
      if (facts(entry.dtype).bits == other.bits) return "ok";
      return other.bits % 8 ? "size-mismatch|partial-byte" : "size-mismatch";
    },

    // Its shape.
    [](FileModel& m, Rng& rng) {
      return set(
          m, rng, kShape,
          pick(rng, {"2", "null", "\"2\"", "{}", "[\"2\"]", "[[2]]", "[2.0]", "[2e0]", "[null]", "[{}]", "[true]"}),
          "bad-shape");
    },
    [](FileModel& m, Rng& rng) {
      return set(m, rng, kShape, pick(rng, {"[-1]", "[-2,-2]", "[2,-9223372036854775808]", "[-99999999999999999999]"}),
                 "negative-shape");
    },
    [](FileModel& m, Rng& rng) {
      return set(m, rng, kShape,
                 pick(rng, {"[9223372036854775808]", "[18446744073709551616]", "[0,99999999999999999999999]"}),
                 "shape-too-large");
    },
    [](FileModel& m, Rng& rng) {
      std::string ones = "[1";
      for (size_t i = 64 + below(rng, 100); i-- > 0;) ones += ",1";
      return set(m, rng, kShape, ones + "]", "rank-too-large");
    },
    [](FileModel& m, Rng& rng) {
      return set(m, rng, kShape,
                 pick(rng, {"[4294967296,4294967296]", "[9223372036854775807,2]", "[2147483648,2147483648,4,1]",
                            "[6148914691236517206,3]", "[4611686018427387904]"}),
                 "element-overflow");
    },
    [](FileModel& m, Rng& rng) -> Answer {
      Entry& entry = touch_any(m, rng);
      auto *dtype = entry.field(kDtype), *shape = entry.field(kShape);
      if (!dtype || !shape || !entry.whole.empty()) return "";
      dtype->value = pick(rng, {"\"F4\"", "\"F6_E3M2\"", "\"F6_E2M3\""});
      shape->value = "[" + std::to_string(2 * below(rng, 50) + 1) + "]";
      return "partial-byte";
    },
    [](FileModel& m, Rng& rng) -> Answer {
      Entry& entry = touch(m, m.entry_with_data(rng));
      auto* shape = entry.field(kShape);
      if (!shape || !entry.whole.empty()) return "";
      shape->value = "[" + std::to_string(*element_count(entry.shape) + 8 * (1 + below(rng, 9))) + "]";
      return "size-mismatch";
    },

    // Its place.
    [](FileModel& m, Rng& rng) {
      return set(m, rng, kOffsets,
                 pick(rng, {"0", "null", "\"0\"", "{}", "[]", "[0]", "[0,0,0]", "[-1,0]", "[0,0.5]", "[\"0\",\"8\"]",
                            "[0,9223372036854775808]", "[0,18446744073709551616]", "[[0,8]]", "[null,8]"}),
                 "bad-offsets");
    },
    [](FileModel& m, Rng& rng) -> Answer {
      Entry& entry = touch(m, m.entry_with_data(rng));
      set_offsets(entry, entry.end, entry.begin);
      return "offsets-reversed";
    },
    [](FileModel& m, Rng& rng) -> Answer {
      Entry& entry = touch_any(m, rng);
      set_offsets(entry, entry.begin, entry.end + 1 + below(rng, 100));
      return "size-mismatch";
    },
    [](FileModel& m, Rng& rng) -> Answer {
      Entry& entry = touch(m, m.entry_with_data(rng));
      const uint64_t by = rng() % 2 ? 1 + rng() % 64 : rng() % (uint64_t{1} << 62) + 1;
      set_offsets(entry, entry.begin + by, entry.end + by);
      return "data-gap|tensors-overlap";
    },
    [](FileModel& m, Rng& rng) -> Answer {
      Entry& entry = touch(m, m.entry_with_data(rng));
      if (entry.begin == 0) return "";
      const uint64_t by = 1 + rng() % entry.begin;
      set_offsets(entry, entry.begin - by, entry.end - by);
      return "tensors-overlap|data-gap";
    },
    [](FileModel& m, Rng& rng) -> Answer {
      Entry &one = touch(m, m.entry_with_data(rng)), &two = touch(m, m.entry_with_data(rng));
      const uint64_t bytes = two.end - two.begin;
      set_offsets(two, one.begin, one.begin + bytes);
      return one.begin == two.begin ? "ok" : "tensors-overlap|data-gap";
    },
    [](FileModel& m, Rng& rng) -> Answer {  // the last tensor claims more than the file has
      Entry& entry = touch(m, m.last());
      auto *dtype = entry.field(kDtype), *shape = entry.field(kShape);
      if (!dtype || !shape || !entry.whole.empty()) return "";
      const uint64_t bytes = entry.end - entry.begin + 1 + (rng() % 2 ? rng() % 100 : rng() % (uint64_t{1} << 50));
      dtype->value = "\"U8\"";
      shape->value = "[" + std::to_string(bytes) + "]";
      set_offsets(entry, entry.begin, entry.begin + bytes);
      return "truncated-file|tensors-overlap";  // the latter if an empty tensor lies at its end
    },
    [](FileModel& m, Rng& rng) -> Answer {
      const size_t at = m.entry_with_data(rng);
      const auto has_data = [](const Entry& entry) { return entry.end > entry.begin; };
      if (std::count_if(m.entries.begin(), m.entries.end(), has_data) < 2) return "";
      m.entries.erase(m.entries.begin() + static_cast<std::ptrdiff_t>(at));
      return "trailing-bytes|data-gap";
    },
};

/// The header as text, wherever the bytes fall. Comes up as often as everything above together.
const Mutation kText[] = {
    [](FileModel& m, Rng& rng) -> Answer {
      for (size_t i = 1 + below(rng, 3); i-- > 0;) {
        const size_t at = below(rng, m.header().size());
        m.as_text(at)[at] = static_cast<char>(rng());
      }
      return "";
    },
    [](FileModel& m, Rng& rng) -> Answer {
      const size_t at = below(rng, m.header().size());
      auto& text = m.as_text(at);
      text[at] = "{}[]\",:0-9.eE\\u "[below(rng, 16)];
      return "";
    },
    [](FileModel& m, Rng& rng) -> Answer {
      const size_t at = below(rng, m.header().size());
      m.touch_all();
      m.as_text(at).erase(at, 1 + below(rng, 20));
      return "";
    },
    [](FileModel& m, Rng& rng) -> Answer {
      const size_t at = below(rng, m.header().size());
      m.touch_all();
      auto& text = m.as_text(at);
      text.insert(at, text.substr(below(rng, text.size()), 1 + below(rng, 60)));
      return "";
    },
    [](FileModel& m, Rng& rng) -> Answer {
      const size_t at = below(rng, m.header().size());
      m.as_text(at).insert(at, junk(rng, 1 + below(rng, 8)));
      return "";
    },
    [](FileModel& m, Rng& rng) -> Answer {  // a number becomes another one
      auto text = m.header();
      const size_t at = text.find_first_of("0123456789", below(rng, text.size()));
      if (at == std::string::npos) return "";
      size_t end = at;
      while (end < text.size() && text[end] >= '0' && text[end] <= '9') ++end;
      const char* number = pick(rng, {"0", "1", "7", "8", "65536", "4294967296", "9223372036854775807", "-1", "1e3"});
      m.touch_all();
      m.as_text(at).replace(at, end - at, number);
      return "";
    },
};

const Mutation kOuter[] = {
    [](FileModel& m, Rng&) -> Answer { return m.length = 0, m.touch_all(), "header-length-zero"; },
    [](FileModel& m, Rng& rng) -> Answer {
      m.touch_all();
      m.length = rng() % 2 ? 100'000'001 + rng() % 1000 : m.header().size() | (1 + rng() % 255) << (32 + rng() % 25);
      return "header-too-large";
    },
    [](FileModel& m, Rng& rng) -> Answer {
      m.touch_all();
      m.length = m.bytes().size() - 7 + (rng() % 2 ? rng() % 16 : rng() % 90'000'000);
      return "header-past-end";
    },
    [](FileModel& m, Rng& rng) -> Answer {
      const uint64_t by = 1 + rng() % 40;
      m.length = rng() % 2 ? m.header().size() + by : m.header().size() - std::min<uint64_t>(by, m.header().size() - 1);
      m.touch_all();
      return "";
    },
    [](FileModel& m, Rng& rng) -> Answer {
      m.length = m.header().size() ^ uint64_t { 1 } << (rng() % 64);
      m.touch_all();
      return "";
    },
    [](FileModel& m, Rng& rng) -> Answer {
      const uint64_t size = m.bytes().size(), header = m.header().size();
      m.cut = rng() % 3 ? size - 1 - rng() % m.data.size() : rng() % 4 ? rng() % size : rng() % 9;
      if (*m.cut == 0) return "empty-file";
      if (*m.cut < 8) return "file-too-short";
      return *m.cut < 8 + header ? "header-past-end" : "truncated-file";
    },
    [](FileModel& m, Rng& rng) -> Answer { return m.data += junk(rng, 1 + below(rng, 100)), "trailing-bytes"; },
    [](FileModel& m, Rng& rng) -> Answer {
      for (size_t i = 1 + below(rng, 10); i-- > 0;) m.data[below(rng, m.data.size())] = static_cast<char>(rng());
      return "ok";
    },
};

}  // namespace

std::vector<Mutation> header_mutations() {
  std::vector<Mutation> all(std::begin(kHeader), std::end(kHeader));
  while (all.size() < 2 * std::size(kHeader)) all.insert(all.end(), std::begin(kText), std::end(kText));
  return all;
}

std::vector<Mutation> outer_mutations() {
  return {std::begin(kOuter), std::end(kOuter)};
}

}  // namespace mezzotint::fuzz
