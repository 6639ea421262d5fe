#include "mezzotint/io/file_kind.h"

#include <algorithm>
#include <cctype>
#include <string>

#include "mezzotint/base/error.h"
#include "mezzotint/io/header.h"

namespace mezzotint::io {
namespace {

struct Kind {
  std::string_view start;  ///< lower-case if `is_text`
  bool is_text;            ///< ignore case and leading white space
  std::string_view name;
  std::string_view problem;
  std::string_view advice;
};

constexpr std::string_view kPyTorch =
    "Load it with torch.load(FILE, weights_only=True) and write it with safetensors.torch.save_file, or download the "
    ".safetensors version of the model";
constexpr std::string_view kUnpack = "Unpack it first";
constexpr std::string_view kDownloadPage =
    "A download that needs a login or a confirmation returns a page: use the direct link of the file";

using namespace std::string_view_literals;
constexpr Kind kKinds[] = {
    {"version https://git-lfs", true, "git-lfs-pointer", "the file is a Git LFS pointer, not the model",
     "Run 'git lfs pull' in its folder or download the file itself"},
    {"<!doctype html", true, "html-page", "the file is a web page, not a model", kDownloadPage},
    {"<html", true, "html-page", "the file is a web page, not a model", kDownloadPage},
    {"<?xml", true, "html-page", "the file is an XML answer of a server, not a model", kDownloadPage},
    {"GGUF", false, "gguf-file", "the file is a GGUF file, which is not read",
     "Use the safetensors version of the model: GGUF files are quantized already"},
    {"PK\x03\x04", false, "pytorch-file",
     "the file is a zip archive, most likely a PyTorch checkpoint (.pt, .ckpt, .bin)", kPyTorch},
    {"\x80\x02\x8a\x0al\xfc\x9c", false, "pytorch-file",
     "the file is an old PyTorch checkpoint (.pt, .ckpt, a Python pickle)", kPyTorch},
    {"\x80\x04\x95", false, "pytorch-file", "the file is a Python pickle", kPyTorch},
    {"\x80\x05\x95", false, "pytorch-file", "the file is a Python pickle", kPyTorch},
    {"\x89HDF\r\n", false, "archive-file", "the file is an HDF5 file, which is not read",
     "Convert it to safetensors with the program that wrote it"},
    {"\x1f\x8b", false, "archive-file", "the file is compressed by gzip", kUnpack},
    {"\x28\xb5\x2f\xfd", false, "archive-file", "the file is compressed by zstd", kUnpack},
    {"7z\xbc\xaf\x27\x1c", false, "archive-file", "the file is a 7z archive", kUnpack},
    {"Rar!", false, "archive-file", "the file is a RAR archive", kUnpack},
};

bool is_space(char c) {
  return c == ' ' || c == '\t' || c == '\r' || c == '\n';
}

/// JSON text begins like this; a damaged header length can begin with a brace as well.
bool looks_like_json(std::string_view text) {
  if (!text.starts_with('{')) return false;
  text.remove_prefix(1);
  while (!text.empty() && is_space(text.front())) text.remove_prefix(1);
  return text.starts_with('"');
}

/// A length that can be meant as one, followed by JSON: whatever it spells as text, it is a safetensors file.
bool looks_right(std::string_view start) {
  if (start.size() < 9 || (start[8] != '{' && !is_space(start[8]))) return false;
  uint64_t length = 0;
  for (size_t i = 8; i-- > 0;) length = length << 8 | static_cast<unsigned char>(start[i]);
  return length <= kMaxHeaderBytes;
}

}  // namespace

void reject_other_kinds(std::string_view start, uint64_t file_bytes, const std::filesystem::path& path) {
  if (file_bytes == 0)
    throw Error({.name = "empty-file",
                 .problem = "the file is empty",
                 .file = path.string(),
                 .advice = "The download or copy failed: fetch the file again"});
  if (looks_right(start)) return;
  std::string_view trimmed = start.starts_with("\xef\xbb\xbf") ? start.substr(3) : start;
  while (!trimmed.empty() && is_space(trimmed.front())) trimmed.remove_prefix(1);
  if (looks_like_json(trimmed))
    throw Error({.name = "json-file",
                 .problem = "the file is JSON text, not a model",
                 .file = path.string(),
                 .expected = "a safetensors file",
                 .advice = "The index of a sharded model must be named *.index.json"});
  std::string lower(trimmed);
  std::transform(lower.begin(), lower.end(), lower.begin(),
                 [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
  for (const auto& kind : kKinds) {
    if (!(kind.is_text ? std::string_view(lower) : start).starts_with(kind.start)) continue;
    throw Error({.name = kind.name,
                 .problem = std::string(kind.problem),
                 .file = path.string(),
                 .expected = "a safetensors file",
                 .advice = std::string(kind.advice)});
  }
}

}  // namespace mezzotint::io
