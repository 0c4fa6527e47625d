(** * Classes of instructions (section 2 of the paper)

    Each class is an existence: an instruction is control sensitive, say, if some run shows it.  Runs
    that trap show nothing (but see [privileged]); what the hypotheses beside the classes have to say
    about traps is below under their own names, since the paper has it in the prose only. *)

From Coq Require Import List Arith Lia.
Require Import Popek.Machine Popek.ThirdGeneration.
Import ListNotations.

Section Classes.
  Variable t : third_generation.
  Notation state := (storage_state (word t)).
  Implicit Types (i : opcode t) (S T : state).

  (** Two states in which a program sees the same: the same P, and the same storage in reach.  Mode,
      location, what lies out of reach and how much of it there is may differ.

      Choice: the bound may differ as well, where storage ends before it.  The paper's r + x keeps the
      bound; then an instruction that reads the bound is not sensitive, and no monitor that cuts the
      bound hides it ([Counters/Choices.v], [bound_letter]). *)
  Definition alike S S' : Prop := P S = P S' /\ view (R S) (E S) = view (R S') (E S').

  (** Privileged: it never completes in user mode, and completes somewhere in supervisor mode.

      Choice: the paper asks of pairs of states, equal but for mode, neither of which memory-traps,
      that one traps and the other does not.  A pair of which one member memory-traps then says nothing
      about the other, which lets an instruction through that completes in user mode
      ([Counters/Choices.v], [pair_letter]). *)
  Definition privileged i : Prop :=
    (forall S T, M S = user -> execute t i S <> Completes T) /\
    (exists S T, M S = supervisor /\ execute t i S = Completes T).

  (** Control sensitive: it changes the mode or the relocation-bounds register and does not trap.

      Choice: the paper says "does not memory-trap".  Then the supervisor call, which traps in every
      mode by exchanging PSWs, is sensitive and not privileged, and no machine that has one satisfies
      the theorem ([Counters/Choices.v], [supervisor_call_letter]). *)
  Definition control_sensitive i : Prop :=
    exists S T, execute t i S = Completes T /\ (M T <> M S \/ R T <> R S).

  (** What two runs from alike states leave is told apart by what the program sees. *)
  Definition differ S T S' T' : Prop :=
    view (R S) (E T) <> view (R S') (E T') \/ P T <> P T'.

  (** Behaviour sensitive by location: moved elsewhere, it does something else. *)
  Definition location_sensitive i : Prop :=
    exists S T S' T', alike S S' /\ M S = M S' /\
      execute t i S = Completes T /\ execute t i S' = Completes T' /\ differ S T S' T'.

  (** Behaviour sensitive by mode: in the other mode, it does something else. *)
  Definition mode_sensitive i : Prop :=
    exists S T T', let S' := St (E S) (match M S with user => supervisor | supervisor => user end) (P S) (R S) in
      execute t i S = Completes T /\ execute t i S' = Completes T' /\ differ S T S' T'.

  Definition sensitive i : Prop := control_sensitive i \/ location_sensitive i \/ mode_sensitive i.
  Definition innocuous i : Prop := ~ sensitive i.

  (** For Theorem 3: sensitive by runs in user mode alone. *)
  Definition user_control_sensitive i : Prop :=
    exists S T, M S = user /\ execute t i S = Completes T /\ (M T <> M S \/ R T <> R S).
  Definition user_location_sensitive i : Prop :=
    exists S T S' T', alike S S' /\ M S = user /\ M S' = user /\
      execute t i S = Completes T /\ execute t i S' = Completes T' /\ differ S T S' T'.
  Definition user_sensitive i : Prop := user_control_sensitive i \/ user_location_sensitive i.

  (** ** What the paper assumes of every instruction *)

  (** R.  References are relocated: what completes in user mode memory-traps in no alike state. *)
  Definition references_relocated : Prop :=
    forall i S T S', M S = user -> execute t i S = Completes T -> alike S S' ->
      execute t i S' <> Traps memory_trap.

  (** T.  What traps somewhere, not on a reference, traps in user mode too: an instruction that
      completes in user mode traps in no alike state. *)
  Definition traps_in_user_too : Prop :=
    forall i S T S', M S = user -> execute t i S = Completes T -> alike S S' ->
      execute t i S' <> Traps other_trap.

  (** K.  What is not privileged is confined: out of reach, it changes nothing. *)
  Definition leaves_alone S T : Prop :=
    before (R S) (E T) = before (R S) (E S) /\ behind_view (R S) (E T) = behind_view (R S) (E S).
  Definition confined : Prop :=
    forall i S T, ~ privileged i -> execute t i S = Completes T -> leaves_alone S T.

  (** The same three for Theorem 3: states in user mode only. *)
  Definition user_references_relocated : Prop :=
    forall i S T S', M S = user -> M S' = user -> execute t i S = Completes T -> alike S S' ->
      execute t i S' <> Traps memory_trap.
  Definition user_traps_alike : Prop :=
    forall i S T S', M S = user -> M S' = user -> execute t i S = Completes T -> alike S S' ->
      execute t i S' <> Traps other_trap.
  Definition user_confined : Prop :=
    forall i S T, M S = user -> execute t i S = Completes T -> leaves_alone S T.

  (** For efficiency: it does not trap in user mode where it completes in an alike state. *)
  Definition no_needless_traps i : Prop :=
    forall S T S', execute t i S = Completes T -> alike S S' -> M S' = user ->
      exists T', execute t i S' = Completes T'.

  (** ** Deciding what is equal *)

  Lemma mode_dec (x y : mode) : {x = y} + {x <> y}.
  Proof. decide equality. Defined.

  Lemma relocation_dec (x y : relocation) : {x = y} + {x <> y}.
  Proof. decide equality; apply Nat.eq_dec. Defined.

  Lemma not_differ S T S' T' :
    ~ differ S T S' T' -> view (R S) (E T) = view (R S') (E T') /\ P T = P T'.
  Proof.
    unfold differ. intros H. split.
    - destruct (list_eq_dec (word_dec t) (view (R S) (E T)) (view (R S') (E T'))); tauto.
    - destruct (Nat.eq_dec (P T) (P T')); tauto.
  Qed.

  Lemma keeps_control i S T :
    ~ control_sensitive i -> execute t i S = Completes T -> M T = M S /\ R T = R S.
  Proof.
    intros H X.
    destruct (mode_dec (M T) (M S)); [| exfalso; apply H; red; eauto].
    destruct (relocation_dec (R T) (R S)); [tauto | exfalso; apply H; red; eauto].
  Qed.

  Lemma user_keeps_control i S T :
    ~ user_control_sensitive i -> M S = user -> execute t i S = Completes T -> M T = M S /\ R T = R S.
  Proof.
    intros H U X.
    destruct (mode_dec (M T) (M S)); [| exfalso; apply H; red; eauto 6].
    destruct (relocation_dec (R T) (R S)); [tauto | exfalso; apply H; red; eauto 6].
  Qed.
End Classes.
