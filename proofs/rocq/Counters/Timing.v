(** * Counter-machines for Theorem 2

    Composition needs that a map keeps guests untimed; and a map needs that the control program's program
    comes to an end. *)

From Coq Require Import List Arith Lia RelationClasses.
Require Import Popek.Machine Popek.ThirdGeneration Popek.Classes Popek.Map.
Require Import Popek.Premises Popek.Monitor Popek.Runs Popek.Theorem1 Popek.Theorem2.
Require Import Popek.Instances.PaperMachine Popek.Instances.SilentDrop.
Import ListNotations.

(** ** A monitor that looks at the clock

    A guest counts.  The monitor lets it count at once when the clock is even, and one step later when it
    is odd: it is right at every time, but how long it takes depends on the clock.  A second monitor owes
    nothing to a guest that looks at the clock, and loses it. *)

Inductive place : Type := guest | monitored | waiting | lost.

Record timed : Type := At { where_is : place; count : nat; clock : nat }.

Definition tick (S : timed) : timed :=
  match S with
  | At guest x c => At guest (x + 1) (c + 1)
  | At monitored x c => if Nat.even c then At monitored (x + 1) (c + 1) else At waiting x (c + 1)
  | At waiting x c => At monitored (x + 1) (c + 1)
  | At lost x c => At lost x (c + 1)
  end.

Definition clocked : machine := {|
  state := timed; instruction := unit; cause := Empty_set;
  fetch := fun _ => inr tt; perform := fun _ S => Next (tick S); deliver := fun _ S => S
|}.

Definition but_clock (S T : timed) : Prop := where_is S = where_is T /\ count S = count T.

Global Instance but_clock_equivalence : Equivalence but_clock.
Proof.
  split; red; unfold but_clock; intros; [easy | intuition congruence | intuition congruence].
Qed.

(** All of [is_map] but the field [keeps_untimed]. *)
Definition is_map_but_for_timing (D D' guard : timed -> Prop) (phi : timed -> timed) : Prop :=
  (forall S, D S -> D (step clocked S)) /\ (forall S, D S -> D' (phi S)) /\
  (forall S S', D S -> D S' -> but_clock (phi S) (phi S') -> but_clock S S') /\
  (forall S S', D S -> D S' -> but_clock S S' -> but_clock (phi S) (phi S')) /\
  (forall S, D S -> untimed clocked but_clock S ->
     exists h, 1 <= h /\ but_clock (run clocked h (phi S)) (phi (step clocked S))) /\
  (forall S, D S -> untimed clocked but_clock S -> forall h, guard (run clocked h (phi S))).

Definition is_guest (S : timed) : Prop := where_is S = guest.
Definition is_watched (S : timed) : Prop := where_is S = monitored \/ where_is S = waiting.
Definition anything (S : timed) : Prop := True.

Definition watch (S : timed) : timed := At monitored (count S) (clock S).
Definition lose (S : timed) : timed :=
  At lost (2 * count S + match where_is S with waiting => 1 | _ => 0 end) (clock S).

Lemma guest_untimed S : is_guest S -> untimed clocked but_clock S.
Proof.
  intros G n U [HU CU].
  assert (where_is (run clocked n S) = guest) as HW.
  { clear HU CU U. induction n; [exact G |]. cbn [run]. destruct (run clocked n S) as [w x c]. cbn in IHn. now subst w. }
  set (V := run clocked n S) in *. clearbody V. destruct U as [w x c], V as [w' x' c']. cbn in *. subst. split; reflexivity.
Qed.

Lemma monitored_timed S : where_is S = monitored -> ~ untimed clocked but_clock S.
Proof.
  destruct S as [w x c]. cbn. intros -> U. destruct (U 0 (At monitored x (c + 1))) as [H _]; [now split |].
  cbn in H. rewrite Nat.add_1_r, Nat.even_succ, <- Nat.negb_even in H. now destruct (Nat.even c).
Qed.

Lemma watched_timed S : is_watched S -> ~ untimed clocked but_clock S.
Proof.
  intros [H | H] U; [now apply monitored_timed in H |].
  apply (monitored_timed (step clocked S)); [destruct S; cbn in *; now subst |].
  apply (untimed_later clocked but_clock S 1 U).
Qed.

Theorem timing_needed :
  is_map_but_for_timing is_guest is_watched anything watch /\
  is_map_but_for_timing is_watched anything anything lose /\
  ~ is_map_but_for_timing is_guest anything anything (fun S => lose (watch S)).
Proof.
  split; [| split].
  - split; [| split; [| split; [| split; [| split]]]].
    + intros [w x c] H. unfold is_guest in *. cbn in *. now subst.
    + now left.
    + intros [w x c] [w' x' c'] H H' [_ C]. unfold is_guest in *. cbn in *. now subst.
    + now intros S S' H H' [_ C].
    + intros [w x c] H _. unfold is_guest in H. cbn in H. subst w. destruct (Nat.even c) eqn:Ev.
      * exists 1. split; [lia |]. cbn. rewrite Ev. now split.
      * exists 2. split; [lia |]. cbn. rewrite Ev. now split.
    + easy.
  - split; [| split; [| split; [| split; [| split]]]].
    + intros [w x c] [H | H]; unfold is_watched; cbn in *; subst; [destruct (Nat.even c); auto | auto].
    + easy.
    + intros [w x c] [w' x' c'] H H' [_ C]. unfold is_watched, but_clock in *. cbn in *.
      destruct H, H'; subst; cbn in C; split; try reflexivity; lia.
    + intros [w x c] [w' x' c'] _ _ [W C]. unfold but_clock. cbn in *. now subst.
    + intros S H U. now apply watched_timed in U.
    + easy.
  - intros (_ & _ & _ & _ & Steps & _).
    destruct (Steps (At guest 0 0) (eq_refl : is_guest (At guest 0 0)) (guest_untimed (At guest 0 0) eq_refl)) as (h & _ & [_ C]).
    cut (count (run clocked h (lose (watch (At guest 0 0)))) = 0); [intros Z; rewrite Z in C; discriminate C |].
    cut (exists c, run clocked h (lose (watch (At guest 0 0))) = At lost 0 c); [intros (c & ->); reflexivity |].
    clear C. induction h as [| h (c & IH)]; [now exists 0 | exists (c + 1)]. cbn [run]. now rewrite IH.
Qed.

(** ** A control program that does not come to an end

    The paper's machine, and for a control program a jump to itself: Theorem 1's hypotheses hold of the
    machine, and nothing the guest asks is ever done. *)

Definition looping : control cell := Control (Word supervisor 3 0 9) [Word user 2 3 0] [].   (* 3: JUMP 3 *)
Definition calling : storage_state cell := St (repeat (Word user 99 0 0) 5) user 0 (Rel 0 5).

Theorem end_needed :
  ~ coded (machine_of paper_machine) eq (paper paper_machine) looping (fun S => S = calling).
Proof.
  intros Coded. destruct (Coded calling other_trap (f paper_machine calling looping) eq_refl) as (j & H).
  - apply clockless.
  - right. now exists SVC.
  - assert (forall h, run (machine_of paper_machine) h
        (deliver (machine_of paper_machine) other_trap (f paper_machine calling looping)) =
        exchange paper_machine (f paper_machine calling looping)) as Stuck.
    { intros h. induction h as [| h IH]; [reflexivity |]. cbn [run]. rewrite IH. reflexivity. }
    rewrite Stuck in H. discriminate H.
Qed.
