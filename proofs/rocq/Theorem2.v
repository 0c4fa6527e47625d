(** * Theorem 2

    "A conventional third generation computer is recursively virtualizable if it is (a) virtualizable,
    and (b) a virtual machine monitor without any timing dependencies can be constructed for it."

    What a virtual machine map is, up to time, is a record ([is_map]); composing two gives one, and the
    induction over the steps of the machine in the middle is made here, inside the prover.  So control
    programs may be stacked to any depth.

    Choices:
    - Between levels the control program is a *program*: the machine in the middle runs it step by step.
      That it can be coded, and comes to an end, is a hypothesis ([coded]); [Instances/Recursive.v] meets
      it, to any depth.
    - "Without timing dependencies": the monitor maps guests whose course does not depend on clocks to
      states whose course does not ([keeps_untimed]).  A guest that reads a clock may tell the difference;
      nothing is claimed for it. *)

From Coq Require Import List Arith Lia Relations RelationClasses.
Require Import Popek.Machine Popek.ThirdGeneration Popek.Classes Popek.Map.
Require Import Popek.Premises Popek.Monitor Popek.Runs Popek.Theorem1.
Import ListNotations.

Section UpToTime.
  Variable m : machine.
  Variable same : state m -> state m -> Prop.   (* equal but for clocks *)
  Context {Eq : Equivalence same}.
  Implicit Types (S T U : state m).
  Infix "~~" := same (at level 70).

  (** Nothing on the whole course from S depends on a clock. *)
  Definition untimed S : Prop := forall n U, U ~~ run m n S -> step m U ~~ step m (run m n S).

  Lemma untimed_run S S' n : untimed S -> S' ~~ S -> run m n S' ~~ run m n S.
  Proof. intros U Same. induction n; [exact Same | simpl; now apply U]. Qed.

  Lemma untimed_same S S' : untimed S -> S' ~~ S -> untimed S'.
  Proof.
    intros U Same n X Hx. pose proof (untimed_run S S' n U Same) as Hn.
    transitivity (step m (run m n S)).
    - apply U. now rewrite Hx.
    - symmetry. now apply U.
  Qed.

  Lemma untimed_later S n : untimed S -> untimed (run m n S).
  Proof. intros U k X. rewrite <- !run_add. apply U. Qed.

  (** A9 for every instruction, fetching and trapping included: then every course is untimed. *)
  Theorem no_clock_untimed :
    A9_no_clock m same ->
    (forall S S' i, S ~~ S' -> fetch m S = inr i -> fetch m S' = inr i) ->
    (forall S S' c T c' T', S ~~ S' -> stops m S c T -> stops m S' c' T' ->
       deliver m c T ~~ deliver m c' T') ->
    forall S, untimed S.
  Proof.
    intros A9 F9 T9 S n X Same. set (Y := run m n S) in *. clearbody Y.
    assert (forall X Y T, X ~~ Y -> completes m X T -> exists T', completes m Y T' /\ T ~~ T') as Both.
    { intros A B T AB (i & F & C). destruct (A9 i A B T AB C) as (T' & C' & TT).
      exists T'. split; [exists i; split; [now apply (F9 A) | exact C'] | exact TT]. }
    destruct (completes_or_stops m X) as [(T & C) | (c & T & C)].
    - destruct (Both X Y T Same C) as (T' & C' & TT).
      now rewrite (step_completes _ _ _ C), (step_completes _ _ _ C').
    - destruct (completes_or_stops m Y) as [(T' & C') | (c' & T' & C')].
      + destruct (Both Y X T' (symmetry Same) C') as (T'' & C'' & _). exfalso.
        destruct C'' as (i & F & X1), C as [[F' _] | (j & F' & X2)]; rewrite F in F'; [easy |].
        inversion F'. subst j. now rewrite X1 in X2.
      + rewrite (step_stops _ _ _ _ C), (step_stops _ _ _ _ C'). now apply (T9 X Y).
  Qed.

  (** phi is a virtual machine map, up to time, from guests in [D] to states in [D'], and [guard] holds of
      the machine below at every moment (its control program is safe, say). *)
  Record is_map (D D' guard : state m -> Prop) (phi : state m -> state m) : Prop := {
    stays : forall S, D S -> D (step m S);
    into : forall S, D S -> D' (phi S);
    maps_one_one : forall S S', D S -> D S' -> phi S ~~ phi S' -> S ~~ S';
    maps_same : forall S S', D S -> D S' -> S ~~ S' -> phi S ~~ phi S';
    keeps_untimed : forall S, D S -> untimed S -> untimed (phi S);
    steps : forall S, D S -> untimed S -> exists h, 1 <= h /\ run m h (phi S) ~~ phi (step m S);
    guarded : forall S, D S -> untimed S -> forall h, guard (run m h (phi S))
  }.

  Lemma stays_run D D' guard phi S n : is_map D D' guard phi -> D S -> D (run m n S).
  Proof. intros Map H. induction n; [exact H | simpl; now apply (stays _ _ _ _ Map)]. Qed.

  (** Any number of steps: the guest's n-th state is reached, in n steps or more. *)
  Theorem map_runs D D' guard phi S n :
    is_map D D' guard phi -> D S -> untimed S -> exists h, n <= h /\ run m h (phi S) ~~ phi (run m n S).
  Proof.
    intros Map H U. induction n as [| n (h & B & IH)]; [exists 0; split; [lia | reflexivity] |].
    pose proof (stays_run _ _ _ _ S n Map H) as Hn. pose proof (untimed_later S n U) as Un.
    destruct (steps _ _ _ _ Map _ Hn Un) as (k & Bk & Step).
    exists (k + h). split; [lia |]. rewrite run_add. cbn [run].
    transitivity (run m k (phi (run m n S))); [| exact Step].
    apply untimed_run; [now apply (keeps_untimed _ _ _ _ Map) | exact IH].
  Qed.

  (** Composition: a virtual machine's virtual machine is one of the machine below. *)
  Theorem composition D D' D'' guard guard' phi psi :
    is_map D D' guard phi -> is_map D' D'' guard' psi ->
    is_map D D'' guard' (fun S => psi (phi S)).
  Proof.
    intros Inner Outer. split.
    - apply Inner.
    - intros S H. now apply (into _ _ _ _ Outer), (into _ _ _ _ Inner).
    - intros S S' H H' Same. apply (maps_one_one _ _ _ _ Inner); auto.
      apply (maps_one_one _ _ _ _ Outer); auto; now apply (into _ _ _ _ Inner).
    - intros S S' H H' Same. apply (maps_same _ _ _ _ Outer);
        [now apply (into _ _ _ _ Inner) .. | now apply (maps_same _ _ _ _ Inner)].
    - intros S H U. apply (keeps_untimed _ _ _ _ Outer);
        [now apply (into _ _ _ _ Inner) | now apply (keeps_untimed _ _ _ _ Inner)].
    - intros S H U.
      pose proof (into _ _ _ _ Inner _ H) as H'. pose proof (keeps_untimed _ _ _ _ Inner _ H U) as U'.
      destruct (steps _ _ _ _ Inner _ H U) as (h & B & Step).
      destruct (map_runs D' D'' guard' psi (phi S) h Outer H' U') as (k & Bk & Run).
      exists k. split; [lia |]. rewrite Run. apply (maps_same _ _ _ _ Outer); [| | exact Step].
      + now apply (stays_run D' D'' guard' psi).
      + apply (into _ _ _ _ Inner), (stays _ _ _ _ Inner), H.
    - intros S H U. apply (guarded _ _ _ _ Outer);
        [now apply (into _ _ _ _ Inner) | now apply (keeps_untimed _ _ _ _ Inner)].
  Qed.

  (** Theorem 2, to any depth: where every level has a map into the next, d levels have one. *)
  Fixpoint nest (phi : nat -> state m -> state m) (d : nat) : state m -> state m :=
    match d with 0 => fun S => S | Datatypes.S d => fun S => phi d (nest phi d S) end.

  Theorem theorem_2 (D guard : nat -> state m -> Prop) (phi : nat -> state m -> state m) :
    (forall j, is_map (D j) (D (Datatypes.S j)) (guard j) (phi j)) ->
    forall d, is_map (D 0) (D (Datatypes.S d)) (guard d) (nest phi (Datatypes.S d)).
  Proof.
    intros Level d. induction d as [| d IH]; [apply Level |].
    exact (composition _ _ _ _ _ _ _ IH (Level (Datatypes.S d))).
  Qed.

  (** ** From the premises to a map

      The control program is coded: where the hardware stops, its own course leads, in finitely many
      steps, to the image of the guest one step on. *)
  Section Coded.
    Variable v : technique m.
    Variable p : private v.

    Variable D : state m -> Prop.   (* the guests of this level *)

    Definition coded : Prop :=
      forall S c T, D S -> untimed S -> stops m (image v S p) c T ->
        exists j, run m j (deliver m c T) ~~ image v (step m S) p.

    Theorem map_from_premises (D' guard : state m -> Prop) :
      A2_fetch m v -> A1_fidelity m v -> coded ->
      (forall S, D S -> ok v S p) ->
      (* A3 *) (forall S, D S -> D (step m S)) ->
      (* A7 *) (forall S, D S -> D' (image v S p)) ->
      (* one-one, and a function, up to time *)
      (forall S S', D S -> D S' -> image v S p ~~ image v S' p -> S ~~ S') ->
      (forall S S', D S -> D S' -> S ~~ S' -> image v S p ~~ image v S' p) ->
      (* no timing dependencies *)
      (forall S, D S -> untimed S -> untimed (image v S p)) ->
      (* resource control *)
      (forall S, D S -> untimed S -> forall h, guard (run m h (image v S p))) ->
      is_map D D' guard (fun S => image v S p).
    Proof.
      intros A2 A1 Coded Ok A3 A7 One Same Untimed Guard. split; auto.
      intros S H U. destruct (completes_or_stops m (image v S p)) as [(T & C) | (c & T & C)].
      - exists 1. split; [lia |]. cbn [run]. rewrite (step_completes _ _ _ C).
        destruct (fidelity_commutes m v (all_direct v) p A2 A1 S T (Ok S H) eq_refl C) as [-> _].
        reflexivity.
      - destruct (Coded S c T H U C) as (j & Run). exists (j + 1). split; [lia |].
        rewrite run_add. cbn [run]. now rewrite (step_stops _ _ _ _ C).
    Qed.
  End Coded.
End UpToTime.

(** A machine without clocks: equal but for clocks is equal, and every course is untimed. *)
Lemma clockless m (S : state m) : untimed m eq S.
Proof. now intros n U ->. Qed.
