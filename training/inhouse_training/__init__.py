"""Learning a repository: base models, prompts, data, fine-tuning, evaluation, the adapter registry, the
engine.

Names load on first use, so that importing the package costs nothing: torch comes in with the first model.
"""

from __future__ import annotations

import os
from importlib import import_module
from typing import TYPE_CHECKING

# Torch's threads wait for each other. One that spins for long burns, on a machine that does other work as well (an
# editor, a build), the very core that the late thread needs: answers and training then take up to five times as long.
# One that sleeps at once has to be woken for every small operation, which costs a quarter of the time where nothing
# else runs. So a thread looks a thousand times and sleeps then (docs/measurements.md). Both are
# read when torch loads, so they are set here, before anything of this package can import it; child processes inherit
# them. Who has chosen a way of waiting keeps it.
if "OMP_WAIT_POLICY" not in os.environ:
    os.environ.setdefault("GOMP_SPINCOUNT", "1000")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

if TYPE_CHECKING:
    from .all_data import retrain_on_everything as retrain_on_everything
    from .base_model import BaseModel as BaseModel
    from .base_model import base_model_folder as base_model_folder
    from .base_model import can_be_base_model as can_be_base_model
    from .base_model import find_base_model as find_base_model
    from .base_model import load_model as load_model
    from .base_model import load_tokenizer as load_tokenizer
    from .base_model import resolve_base_model as resolve_base_model
    from .batching.engine import BatchedEngine as BatchedEngine
    from .dataset import Dataset as Dataset
    from .dataset import build_dataset as build_dataset
    from .dataset import repository_name as repository_name
    from .dataset_rows import DatasetRow as DatasetRow
    from .dataset_rows import export_conversations as export_conversations
    from .dataset_rows import read_rows as read_rows
    from .devices import Device as Device
    from .devices import HeldMemory as HeldMemory
    from .devices import MakeRoom as MakeRoom
    from .devices import as_it_is as as_it_is
    from .devices import devices_here as devices_here
    from .devices import give_back_memory as give_back_memory
    from .devices import held_by_this_process as held_by_this_process
    from .engine import BASE as BASE
    from .engine import Engine as Engine
    from .engine import Finished as Finished
    from .engine import GenerationEvent as GenerationEvent
    from .engine import GenerationRequest as GenerationRequest
    from .engine import Message as Message
    from .engine import RowScore as RowScore
    from .engine import ScoredRow as ScoredRow
    from .engine import TextDelta as TextDelta
    from .engine_choice import load_engine as load_engine
    from .export import Export as Export
    from .export import export_adapter as export_adapter
    from .finetune import training_curve as training_curve
    from .forecast import Forecast as Forecast
    from .golden import Golden as Golden
    from .golden import distance as distance
    from .golden import keep_golden as keep_golden
    from .golden import make_golden as make_golden
    from .golden import read_golden as read_golden
    from .in_process_engine import InProcessEngine as InProcessEngine
    from .interval import INTERVAL as INTERVAL
    from .interval import parse_interval as parse_interval
    from .machines import Machine as Machine
    from .machines import named_card as named_card
    from .machines import this_machine as this_machine
    from .machines import visible_gpus as visible_gpus
    from .measures.model import evaluate_version as evaluate_version
    from .measures.report import write_evaluation_report as write_evaluation_report
    from .plan import RetrainPlan as RetrainPlan
    from .plan import plan_retraining as plan_retraining
    from .plan import with_forecast as with_forecast
    from .prompts import SYSTEM as SYSTEM
    from .prompts import AnswerPrompt as AnswerPrompt
    from .prompts import build_answer_prompt as build_answer_prompt
    from .prompts import change_question as change_question
    from .prompts import chat_ids as chat_ids
    from .prompts import chat_row as chat_row
    from .prompts import raw_row as raw_row
    from .recipe import Recipe as Recipe
    from .recipe import fitting_recipe as fitting_recipe
    from .recipe import load_recipe as load_recipe
    from .recipe import recipe_names as recipe_names
    from .registry import KEPT_VERSIONS as KEPT_VERSIONS
    from .registry import AdapterManifest as AdapterManifest
    from .registry import AdapterVersion as AdapterVersion
    from .registry import Judged as Judged
    from .registry import Overtaken as Overtaken
    from .registry import Registry as Registry
    from .repetition import Repetition as Repetition
    from .replay import replay_source as replay_source
    from .replay import replay_texts as replay_texts
    from .retrain import RetrainResult as RetrainResult
    from .reviews import NO_REMARKS as NO_REMARKS
    from .room import Owner as Owner
    from .room import Room as Room
    from .room import plan_room as plan_room
    from .runs import FinishedRun as FinishedRun
    from .runs import Run as Run
    from .runs import finished_runs as finished_runs
    from .runs import forget_runs as forget_runs
    from .runs import hold_runs as hold_runs
    from .runs import open_run as open_run
    from .runs import runs_holder as runs_holder
    from .runs import start_run as start_run
    from .schedule import LastRun as LastRun
    from .schedule import due_at as due_at
    from .schedule import is_ahead as is_ahead
    from .schedule import landed_since as landed_since
    from .schedule import last_run as last_run
    from .schedule import reason_to_wait as reason_to_wait
    from .scored_lines import LineRow as LineRow
    from .scored_lines import below_passages as below_passages
    from .scored_lines import line_rows as line_rows
    from .scoring import TokenScores as TokenScores
    from .sweep.forecast import SweepForecast as SweepForecast
    from .sweep.forecast import forecast_sweep as forecast_sweep
    from .sweep.job import SweepPlan as SweepPlan
    from .sweep.job import SweepResult as SweepResult
    from .sweep.job import plan_sweep as plan_sweep
    from .sweep.job import run_sweep as run_sweep
    from .sweep.report import sweep_reasons as sweep_reasons
    from .synthesis.cache import Replies as Replies
    from .synthesis.cache import ReplyCache as ReplyCache
    from .synthesis.cache import stored_replies as stored_replies
    from .synthesis.generator import EndpointGenerator as EndpointGenerator
    from .synthesis.generator import EngineGenerator as EngineGenerator
    from .synthesis.generator import Generator as Generator
    from .synthesis.rows import SYNTHETIC as SYNTHETIC
    from .synthesis.rows import wanted_kinds as wanted_kinds
    from .synthesis.sources import read_sections as read_sections
    from .synthesis.synthesize import Estimate as Estimate
    from .synthesis.synthesize import SynthesisReport as SynthesisReport
    from .synthesis.synthesize import estimate as estimate
    from .synthesis.synthesize import synthesize as synthesize
    from .synthesis.tasks import TOPICS as TOPICS
    from .synthesis.tasks import Task as Task
    from .synthesis.tasks import plan_tasks as plan_tasks
    from .transformers_engine import TransformersEngine as TransformersEngine
    from .weights import AskedWeights as AskedWeights
    from .weights import Weights as Weights
    from .weights import answering_weights as answering_weights
    from .weights import trains_in_4bit as trains_in_4bit
    from .weights import weights_here as weights_here

_MODULE_OF = {
    "BatchedEngine": "batching.engine",
    "load_engine": "engine_choice",
    "SweepForecast": "sweep.forecast",
    "forecast_sweep": "sweep.forecast",
    "SweepPlan": "sweep.job",
    "SweepResult": "sweep.job",
    "plan_sweep": "sweep.job",
    "run_sweep": "sweep.job",
    "sweep_reasons": "sweep.report",
    "DatasetRow": "dataset_rows",
    "LineRow": "scored_lines",
    "TokenScores": "scoring",
    "below_passages": "scored_lines",
    "line_rows": "scored_lines",
    "Export": "export",
    "export_conversations": "dataset_rows",
    "read_rows": "dataset_rows",
    "Golden": "golden",
    "distance": "golden",
    "keep_golden": "golden",
    "make_golden": "golden",
    "read_golden": "golden",
    "INTERVAL": "interval",
    "export_adapter": "export",
    "KEPT_VERSIONS": "registry",
    "forget_runs": "runs",
    "LastRun": "schedule",
    "RetrainPlan": "plan",
    "due_at": "schedule",
    "base_model_folder": "base_model",
    "can_be_base_model": "base_model",
    "find_base_model": "base_model",
    "FinishedRun": "runs",
    "finished_runs": "runs",
    "hold_runs": "runs",
    "runs_holder": "runs",
    "is_ahead": "schedule",
    "landed_since": "schedule",
    "last_run": "schedule",
    "parse_interval": "interval",
    "plan_retraining": "plan",
    "reason_to_wait": "schedule",
    "Forecast": "forecast",
    "Machine": "machines",
    "named_card": "machines",
    "this_machine": "machines",
    "visible_gpus": "machines",
    "retrain_on_everything": "all_data",
    "training_curve": "finetune",
    "with_forecast": "plan",
    "start_run": "runs",
    "recipe_names": "recipe",
    "open_run": "runs",
    "fitting_recipe": "recipe",
    "load_recipe": "recipe",
    "evaluate_version": "measures.model",
    "write_evaluation_report": "measures.report",
    "build_dataset": "dataset",
    "repository_name": "dataset",
    "EndpointGenerator": "synthesis.generator",
    "EngineGenerator": "synthesis.generator",
    "Estimate": "synthesis.synthesize",
    "Generator": "synthesis.generator",
    "Replies": "synthesis.cache",
    "ReplyCache": "synthesis.cache",
    "SYNTHETIC": "synthesis.rows",
    "TOPICS": "synthesis.tasks",
    "SynthesisReport": "synthesis.synthesize",
    "Task": "synthesis.tasks",
    "estimate": "synthesis.synthesize",
    "plan_tasks": "synthesis.tasks",
    "read_sections": "synthesis.sources",
    "stored_replies": "synthesis.cache",
    "synthesize": "synthesis.synthesize",
    "wanted_kinds": "synthesis.rows",
    "Device": "devices",
    "as_it_is": "devices",
    "HeldMemory": "devices",
    "devices_here": "devices",
    "give_back_memory": "devices",
    "held_by_this_process": "devices",
    "MakeRoom": "devices",
    "Owner": "room",
    "Room": "room",
    "plan_room": "room",
    "NO_REMARKS": "reviews",
    "Run": "runs",
    "RetrainResult": "retrain",
    "Recipe": "recipe",
    "Dataset": "dataset",
    "AdapterManifest": "registry",
    "AdapterVersion": "registry",
    "Judged": "registry",
    "Overtaken": "registry",
    "AnswerPrompt": "prompts",
    "BASE": "engine",
    "BaseModel": "base_model",
    "Engine": "engine",
    "Finished": "engine",
    "GenerationEvent": "engine",
    "GenerationRequest": "engine",
    "Message": "engine",
    "Registry": "registry",
    "RowScore": "engine",
    "SYSTEM": "prompts",
    "ScoredRow": "engine",
    "TextDelta": "engine",
    "AskedWeights": "weights",
    "InProcessEngine": "in_process_engine",
    "TransformersEngine": "transformers_engine",
    "Weights": "weights",
    "answering_weights": "weights",
    "trains_in_4bit": "weights",
    "weights_here": "weights",
    "build_answer_prompt": "prompts",
    "change_question": "prompts",
    "chat_ids": "prompts",
    "chat_row": "prompts",
    "load_model": "base_model",
    "load_tokenizer": "base_model",
    "raw_row": "prompts",
    "Repetition": "repetition",
    "replay_source": "replay",
    "replay_texts": "replay",
    "resolve_base_model": "base_model",
}


def __getattr__(name: str) -> object:
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f".{_MODULE_OF[name]}", __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_MODULE_OF})
