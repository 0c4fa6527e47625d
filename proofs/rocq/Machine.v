(** * Any machine

    A machine is a set of states and a set of instructions.  An instruction, with its operands, is a
    function that ends in one of two ways: it completes in a state, or it traps for some cause.  Popek
    and Goldberg write a trap as one more state transformation; here it is an ending of its own, since
    most of what the paper says of an instruction it says of runs that do not trap.

    Nothing in this file knows what a state is made of.  [ThirdGeneration.v] has the paper's machine. *)

From Coq Require Import List Arith Lia.

Inductive outcome (state cause : Type) : Type :=
| Next (T : state)              (* completes in T *)
| Trap (c : cause) (T : state). (* traps for c, having made the state T: what changed before counts *)
Arguments Next {state cause}.
Arguments Trap {state cause}.

Record machine : Type := {
  state : Type;
  instruction : Type;   (* with its operands; only forms that exist *)
  cause : Type;         (* why a run traps *)
  fetch : state -> cause + instruction;  (* fetching may trap, too *)
  perform : instruction -> state -> outcome state cause;
  deliver : cause -> state -> state      (* what the bare machine does when it traps *)
}.

Section Machine.
  Variable m : machine.

  (** The fetched instruction completes. *)
  Definition completes (S T : state m) : Prop :=
    exists i, fetch m S = inr i /\ perform m i S = Next T.

  (** Fetching traps, or the fetched instruction does. *)
  Definition stops (S : state m) (c : cause m) (T : state m) : Prop :=
    fetch m S = inl c /\ T = S \/ exists i, fetch m S = inr i /\ perform m i S = Trap c T.

  (** One step of the bare machine: a total function, since a trap is delivered. *)
  Definition step (S : state m) : state m :=
    match fetch m S with
    | inl c => deliver m c S
    | inr i => match perform m i S with Next T => T | Trap c T => deliver m c T end
    end.

  (** [run n S] is the paper's S after n steps; a run is infinite, and this is its n-th state. *)
  Fixpoint run (n : nat) (S : state m) : state m :=
    match n with 0 => S | Datatypes.S n => step (run n S) end.

  Lemma completes_or_stops (S : state m) :
    (exists T, completes S T) \/ (exists c T, stops S c T).
  Proof.
    unfold completes, stops. destruct (fetch m S) as [c | i] eqn:F; [right; eauto |].
    destruct (perform m i S) as [T | c T] eqn:X; [left; eauto 6 | right; eauto 7].
  Qed.

  Lemma step_completes (S T : state m) : completes S T -> step S = T.
  Proof. intros (i & F & X). unfold step. now rewrite F, X. Qed.

  Lemma step_stops (S : state m) c T : stops S c T -> step S = deliver m c T.
  Proof. unfold step. intros [[F ->] | (i & F & X)]; now rewrite F, ?X. Qed.

  Lemma run_add (n k : nat) (S : state m) : run (n + k) S = run n (run k S).
  Proof. induction n; simpl; congruence. Qed.

  Lemma run_step (n : nat) (S : state m) : run n (step S) = step (run n S).
  Proof. induction n; simpl; congruence. Qed.
End Machine.
