#include "mezzotint/convert/execute.h"

#include <algorithm>
#include <chrono>

#include "mezzotint/base/version.h"
#include "mezzotint/convert/journal.h"
#include "mezzotint/convert/merging/merge.h"
#include "mezzotint/convert/pipeline.h"
#include "mezzotint/convert/recipe.h"
#include "mezzotint/formats/parallel.h"
#include "mezzotint/io/hash.h"
#include "mezzotint/io/platform.h"

namespace mezzotint::convert {
namespace {

using Clock = std::chrono::steady_clock;

double seconds_since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

// Everything that decides a byte of the output: two runs with equal fingerprints may share a .partial file.
uint64_t fingerprint(const Plan& plan, const checkpoint::Model& model) {
  io::Hash64 hash;
  hash.add(kVersion).add(model.source().fingerprint()).add(recipe_json(plan.options));
  if (plan.merge) hash.add(plan.merge->fingerprint());
  for (const auto& adapters : {plan.scale_adapters, plan.input_adapters})
    if (adapters) hash.add(adapters->fingerprint());
  if (plan.original) hash.add(plan.original->source().fingerprint());
  for (const auto& file : plan.layout.files) hash.add(file.header);
  return hash.value();
}

/// A new run empties the .partial file before it has a journal of its own: killed in between, it must not leave an
/// older journal that vouches for those bytes. The lock keeps the journal of a run that is still at work.
void forget_earlier_run(const Plan& plan, const std::filesystem::path& journal) {
  namespace platform = io::platform;
  if (platform::file_type(journal) == platform::FileType::missing) return;
  const auto partial = io::partial_path(plan.layout.files.front().path);
  if (platform::file_type(partial) == platform::FileType::missing) return platform::remove(journal);
  const auto file = platform::File::open_write(partial, false);
  if (file.try_lock() != platform::File::Lock::busy) platform::remove(journal);
}

/// Calls the user's callback at most ~20 times a second.
class Ticker {
 public:
  Ticker(const Pipeline& pipeline, const std::function<void(const Progress&)>& callback)
      : pipeline_(pipeline), callback_(callback) {}
  void operator()() {
    if (!callback_ || seconds_since(last_) < 0.045) return;
    last_ = Clock::now();
    callback_(pipeline_.progress());
  }

 private:
  const Pipeline& pipeline_;
  const std::function<void(const Progress&)>& callback_;
  Clock::time_point last_{};
};

}  // namespace

int thread_count(int wanted) {
  return wanted > 0 ? wanted : formats::default_threads();
}

Outcome execute(const Plan& plan, const checkpoint::Model& model, const ExecuteOptions& options) {
  const auto start = Clock::now();
  // Never more than the plan's: its memory was counted for so many.
  const auto threads =
      static_cast<size_t>(std::max(1, options.threads > 0 ? std::min(options.threads, plan.threads) : plan.threads));
  const auto journal_path = Journal::path_for(plan.output);
  const uint64_t identity = fingerprint(plan, model);

  std::vector<size_t> done;
  if (options.resume) done = Journal::read(journal_path, identity);
  const bool resume =
      !done.empty() && std::all_of(plan.layout.files.begin(), plan.layout.files.end(), [](const auto& file) {
        return std::filesystem::exists(io::partial_path(file.path));
      });
  if (!resume) done.clear();

  if (!resume) forget_earlier_run(plan, journal_path);
  io::Writer writer(plan.layout, resume ? io::Writer::Mode::resume : io::Writer::Mode::create, options.overwrite);
  if (resume) writer.sync();
  Journal journal(journal_path, identity, done);
  Pipeline pipeline(plan, model, writer, journal, threads, options.measure);
  pipeline.skip(done);
  Scheduler scheduler(
      threads, Pipeline::window(plan, static_cast<int>(threads)), [&] { return pipeline.next_job(); }, options.cancel);
  Ticker ticker(pipeline, options.progress);
  const bool complete = scheduler.run([&] { ticker(); });

  Outcome outcome;
  outcome.rows_resumed = done.size();
  outcome.bytes_in = plan.bytes_in;
  outcome.bytes_out = plan.bytes_out;
  outcome.warnings = pipeline.take_warnings();
  outcome.layers = pipeline.take_measured();
  outcome.cancelled = !complete;
  if (complete) {
    writer.commit();
    journal.remove();
  } else {
    const size_t recorded = journal.recorded();
    writer.sync();
    journal.synced(recorded);
  }
  if (options.progress) options.progress(pipeline.progress());
  outcome.seconds = seconds_since(start);
  return outcome;
}

}  // namespace mezzotint::convert
