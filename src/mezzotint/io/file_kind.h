#pragma once
#include <cstdint>
#include <filesystem>
#include <string_view>

/// Recognising files that are no safetensors files (room-internal).
namespace mezzotint::io {

/// Throws an Error that says what the file is and what to do, if its first bytes belong to another known kind of file.
/// `start` holds the first bytes (64 or more, or the whole file).
void reject_other_kinds(std::string_view start, uint64_t file_bytes, const std::filesystem::path& path);

}  // namespace mezzotint::io
