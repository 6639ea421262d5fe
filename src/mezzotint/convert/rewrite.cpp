#include "mezzotint/convert/rewrite.h"

#include <algorithm>
#include <cassert>
#include <memory>

#include "mezzotint/base/error.h"
#include "mezzotint/io/platform.h"

namespace mezzotint::convert {
namespace {

constexpr uint64_t kCopyBytes = 8 << 20;

std::vector<std::byte> bytes_of(const std::string& text) {
  const auto* begin = reinterpret_cast<const std::byte*>(text.data());
  return {begin, begin + text.size()};
}

}  // namespace

RewriteItem RewriteItem::copy(const io::Source& source, size_t tensor, std::string name) {
  const io::TensorInfo& info = source.tensors()[tensor];
  return {.spec = {std::move(name), info.dtype, info.shape}, .source = &source, .tensor = tensor, .make = {}};
}

RewriteItem RewriteItem::text(std::string name, std::string text) {
  RewriteItem item;
  item.spec = {std::move(name), DType::u8, {static_cast<int64_t>(text.size())}};
  item.make = [text = std::move(text)] { return bytes_of(text); };
  return item;
}

void refuse_input_as_output(const io::Source& source, const io::OutputPlan& plan) {
  for (const auto& file : plan.files)
    for (const auto& input : source.files())
      if (io::platform::same_file(file.path, input))
        throw Error({.name = "output-is-input",
                     .problem = "the output is the file being read",
                     .file = file.path.string(),
                     .advice = "Choose another name with -o."});
}

void rewrite(const std::filesystem::path& output, const std::vector<RewriteItem>& items,
             const io::OutputOptions& layout, const ExecuteOptions& options,
             const std::vector<const io::Source*>& inputs) {
  std::vector<io::TensorSpec> specs;
  specs.reserve(items.size());
  for (const auto& item : items) specs.push_back(item.spec);
  io::OutputPlan plan = io::plan_output(output, specs, layout);
  for (const io::Source* input : inputs) refuse_input_as_output(*input, plan);

  Progress progress;
  progress.rows_total = items.size();
  for (const auto& tensor : plan.tensors) progress.bytes_total += tensor.bytes;
  io::Writer writer(std::move(plan), io::Writer::Mode::create, options.overwrite);
  try {
    std::vector<std::byte> buffer;
    for (size_t i = 0; i < items.size(); ++i) {
      const RewriteItem& item = items[i];
      const uint64_t bytes = writer.plan().tensors[i].bytes;
      progress.current = item.spec.name;
      if (item.source == nullptr) {
        const auto made = item.make();
        assert(made.size() == bytes);
        writer.write(i, 0, made.data(), made.size());
        progress.bytes_done += bytes;
      }
      for (uint64_t at = 0; item.source != nullptr && at < bytes; at += kCopyBytes) {
        if (options.cancel != nullptr && options.cancel->load())
          throw Error({.name = "cancelled", .problem = "stopped; nothing was written", .file = output.string()});
        const uint64_t size = std::min(bytes - at, kCopyBytes);
        buffer.resize(size);
        item.source->read(item.tensor, at, buffer.data(), size);
        writer.write(i, at, buffer.data(), size);
        progress.bytes_done += size;
        if (options.progress) options.progress(progress);
      }
      ++progress.rows_done;
    }
    writer.commit();
  } catch (...) {
    writer.discard();
    throw;
  }
}

}  // namespace mezzotint::convert
