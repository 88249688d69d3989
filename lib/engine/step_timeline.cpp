// SPDX-License-Identifier: Apache-2.0
#include "engine/step_timeline.hpp"

#include <utility>

#include <fmt/format.h>

#include "tessera/base/atomic_file.hpp"
#include "tessera/base/error.hpp"
#include "tessera/base/log.hpp"
#include "tessera/engine/options.hpp"
#include "tessera/parallel/pipeline_schedule.hpp"

#include "engine/trace_events.hpp"

namespace tessera::engine {
namespace {

using Json = nlohmann::ordered_json;

void send_text(Communicator& world, const std::string& text) {
  const std::int64_t length = std::ssize(text);
  world.send(&length, 1, DType::int64, 0).wait();
  world.send(text.data(), length, DType::uint8, 0).wait();
}

std::string receive_text(Communicator& world, int from) {
  std::int64_t length = 0;
  world.receive(&length, 1, DType::int64, from).wait();
  std::string text(static_cast<std::size_t>(length), '\0');
  world.receive(text.data(), length, DType::uint8, from).wait();
  return text;
}

// On rank 0: the texts of all ranks, one after the other, so that it never holds all of them. What
// it cannot write it receives all the same: nobody waits for it in vain.
void write_all(Communicator& world, const std::string& path, const std::string& own,
               const std::string& end) {
  std::optional<AtomicFile> file;
  std::string error;
  const auto attempt = [&](const auto& action) {
    if (!error.empty()) return;
    try {
      action();
    } catch (const Error& failure) {
      error = failure.what();
    }
  };
  attempt([&] {
    file.emplace(path);
    file->write(own);
  });
  for (int rank = 1; rank < world.size(); ++rank) {
    const std::string text = receive_text(world, rank);
    attempt([&] { file->write(text); });
  }
  attempt([&] {
    file->write(end);
    file->commit();
  });
  TESSERA_CHECK(error.empty(), Code::io, error);
}

// "rank 3 (pipeline 1, data 1)"
std::string describe_place(const Mesh& mesh, int rank) {
  std::string place;
  for (const Axis axis : kAxes)
    if (mesh.size(axis) > 1)
      place += fmt::format("{}{} {}", place.empty() ? "" : ", ", to_string(axis),
                           mesh.plan().position(axis, rank));
  return place.empty() ? fmt::format("rank {}", rank) : fmt::format("rank {} ({})", rank, place);
}

Json facts_of(const RunSetup& setup) {
  Json facts;
  facts["mesh"] = setup.mesh->shape().to_string();
  if (!setup.device.is_cpu())
    facts["times"] = "of the host: a GPU may begin and end its work later";
  if (setup.mesh->shape().pipeline == 1) return facts;
  const parallel::PipelineShape shape = pipeline_shape(setup.config).resolved();
  facts["pipeline"] = {{"schedule", parallel::to_string(shape.kind)},
                       {"ranks", shape.ranks},
                       {"chunks", shape.chunks},
                       {"micro_batches", shape.micro_batches}};
  facts["pipelines"] = setup.mesh->plan().groups(Axis::pipeline);
  return facts;
}

}  // namespace

StepTimeline::StepTimeline(Communicator& world, std::optional<config::StepRange> steps,
                           std::filesystem::path file, std::string process, Json facts)
    : world_(world),
      steps_(steps),
      file_(std::move(file)),
      process_(std::move(process)),
      facts_(std::move(facts)) {}

StepTimeline::StepTimeline(Runtime& runtime, const RunSetup& setup, std::filesystem::path file)
    : StepTimeline(runtime.world(), setup.config.run.timeline, std::move(file),
                   describe_place(*setup.mesh, runtime.rank()), facts_of(setup)) {}

StepTimeline::~StepTimeline() {
  if (recording_) Timeline::stop();
}

void StepTimeline::before(std::int64_t step) {
  if (!steps_ || recording_ || step < steps_->first || step > steps_->last) return;
  clock_ = measure_clock(world_, Timeline::now);
  first_step_ = step;
  recording_ = true;
  Timeline::start();
}

void StepTimeline::after(std::int64_t step, bool last) {
  if (recording_ && (last || step >= steps_->last)) write(step);
}

void StepTimeline::write(std::int64_t last_step) {
  const Timeline::Recording recording = Timeline::stop();
  recording_ = false;
  const Traffic::Pause pause(world_.traffic());
  const ClockMap clock(clock_, measure_clock(world_, Timeline::now));
  const std::int64_t begin = recording.spans.empty() ? Timeline::now() : recording.spans[0].begin;
  const std::int64_t origin = world_.all_reduce_scalar(clock(begin), Reduction::min);
  const std::int64_t error = world_.all_reduce_scalar(clock.error(), Reduction::max);
  const std::int64_t dropped = world_.all_reduce_scalar(recording.dropped, Reduction::sum);
  std::string events = trace_events(world_.rank(), process_, recording.spans, clock, origin);
  if (world_.rank() != 0) return send_text(world_, events);

  Json facts{{"format", "tessera timeline 1"},
             {"steps", {first_step_, last_step}},
             {"ranks", world_.size()},
             {"clock_error_us", static_cast<double>(error) / 1000},
             {"spans_dropped", dropped}};
  facts.update(facts_);
  const std::string head = "{\"displayTimeUnit\": \"ms\",\n\"otherData\": " + facts.dump() +
                           ",\n\"traceEvents\": [\n" + events;
  // The last event has no comma: it tells that the file is whole.
  // The last event has no comma after it.
  const Json end{{"ph", "i"}, {"pid", 0}, {"tid", 0}, {"ts", 0}, {"s", "g"}, {"name", "start"}};
  try {
    write_all(world_, file_.string(), head, end.dump() + "\n]}\n");
    log_info(fmt::format("wrote {}: steps {} to {}, clocks aligned to {:.1f} us{}", file_.string(),
                         first_step_, last_step, static_cast<double>(error) / 1000,
                         dropped > 0 ? fmt::format("; {} spans were too many", dropped) : ""));
  } catch (const Error& failure) {
    log_warning(
        fmt::format("no timeline of steps {} to {}: {}", first_step_, last_step, failure.what()));
  }
}

}  // namespace tessera::engine
